"""Interleaved timing: all variants in turn, many times over, so that a slow moment of the machine meets all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch.autograd.profiler import profile

Work = Callable[[], object]


@dataclass(frozen=True)
class Figure:
    """One ratio of a benchmark.

    Args:
        what: which ratio, as the page names it.
        ratio: its value; smaller is better.
        bar: the value that it must not exceed; None if there is none.
        note: the absolute figures behind it.
        spread: distance between the quartiles of the times, over their median.
        low: where the 95 % interval of paired ratios begins, which decides about the bar; the ratio if there is none.
    """

    what: str
    ratio: float
    bar: float | None = None
    note: str = ""
    spread: float = 0.0
    low: float | None = None

    @property
    def met(self) -> str:
        return "–" if self.bar is None else "yes" if (self.low or self.ratio) <= self.bar else "no"


@dataclass(frozen=True)
class Times:
    """The times of several variants.

    Args:
        seconds: the median of each variant.
        spread: the largest distance between quartiles, over the median.
        turns: the seconds of each variant in every turn.
    """

    seconds: Mapping[str, float]
    spread: float
    turns: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def ratio(self, one: str, other: str) -> float:
        return self.seconds[one] / self.seconds[other]

    def paired(self, what: str, one: str, other: str, bar: float | None = None, note: str = "") -> Figure:
        """The median of the ratios of both in each turn, with its 95 % interval, which makes no assumption on them."""
        ratios = sorted(a / b for a, b in zip(self.turns[one], self.turns[other], strict=True))
        reach = round(1.96 * math.sqrt(len(ratios)) / 2)
        middle = len(ratios) // 2
        low, high = ratios[max(0, middle - reach)], ratios[min(len(ratios) - 1, middle + reach)]
        told = f"95 % interval {low:.3g} to {high:.3g}"
        return Figure(what, statistics.median(ratios), bar, f"{told}; {note}" if note else told, self.spread, low)

    def figure(self, what: str, one: str, other: str, bar: float | None = None, note: str = "") -> Figure:
        return Figure(what, self.ratio(one, other), bar, note, self.spread)


def interleaved(variants: Mapping[str, Work], repeats: int, warm: int = 2) -> Times:
    """Time variants in turn, `repeats` times, after `warm` turns that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warm + repeats):
        for name, work in variants.items():
            started = time.perf_counter()
            work()
            if turn >= warm:
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return Times(medians, max(spread(values) for values in seconds.values()), seconds)


def spread(values: list[float]) -> float:
    """Distance between quartiles over the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle


def saved_bytes(work: Work) -> int:
    """Bytes of distinct storage that autograd saves for backward while `work` runs."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        # Views share a storage, which is counted once.
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(storages.values())


def peak_bytes(work: Work) -> int:
    """The most bytes that `work` allocates on the CPU at one time, as torch's profiler counts."""
    with profile(profile_memory=True) as profiled:
        work()
    events = [event for event in profiled.kineto_results.events() if event.name() == "[memory]"]
    # Bytes freed have a negative size, so that the running sum is what is held.
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(sizes), default=0)
