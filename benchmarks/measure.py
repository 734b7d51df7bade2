"""Interleaved timing: every variant in turn, again and again; medians, and how much they spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch.autograd.profiler import profile

Work = Callable[[], object]


@dataclass(frozen=True)
class Figure:
    """One ratio with the bar that it must not exceed (None: no bar), and what it stands on."""

    what: str
    ratio: float
    bar: float | None = None
    note: str = ""
    spread: float = 0.0

    @property
    def met(self) -> str:
        return "–" if self.bar is None else "yes" if self.ratio <= self.bar else "no"


@dataclass(frozen=True)
class Times:
    """Median seconds of each variant; spread: the largest distance between quartiles over its median."""

    seconds: Mapping[str, float]
    spread: float

    def ratio(self, one: str, other: str) -> float:
        return self.seconds[one] / self.seconds[other]

    def figure(self, what: str, one: str, other: str, bar: float | None = None, note: str = "") -> Figure:
        return Figure(what, self.ratio(one, other), bar, note, self.spread)


def interleaved(variants: Mapping[str, Work], repeats: int, warm: int = 2) -> Times:
    """Run each variant in turn, `repeats` times after a few that do not count."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warm + repeats):
        for name, work in variants.items():
            started = time.perf_counter()
            work()
            if turn >= warm:
                taken[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(own) for name, own in taken.items()}
    return Times(medians, max(spread(own) for own in taken.values()))


def spread(taken: list[float]) -> float:
    """Distance between quartiles over the median."""
    low, middle, high = statistics.quantiles(taken, n=4)
    return (high - low) / middle


def saved_bytes(work: Work) -> int:
    """Bytes of distinct storage that autograd saves for backward while `work` runs."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(storages.values())


def peak_bytes(work: Work) -> int:
    """The most bytes that `work` holds at once on the CPU beyond what was there before, as torch's profiler counts."""
    with profile(profile_memory=True) as profiled:
        work()
    found = [event for event in profiled.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(found, key=lambda event: event.start_ns())]
    return max(accumulate(sizes), default=0)
