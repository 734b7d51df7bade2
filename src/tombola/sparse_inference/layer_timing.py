"""What a layer takes dense and sparse."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MIN_GAIN = 1.1
"""What is sparse must be this many times as fast as dense to be used."""
SECONDS = 0.5
"""How long one comparison may take, after each variant ran three times."""
MOST = 30


@dataclass(frozen=True)
class LayerTiming:
    """The measured seconds of one layer.

    Args:
        layer: its name.
        density: the kept share of its weights.
        seconds: "dense", in the faster layout, and "sparse", as one step among others; with numba those of
            the part that it runs in; nothing if it was not tried.
        chosen: what the network runs it as: "dense" or "sparse". A layer that is slower sparse runs so all the same
            where its neighbours would lose more by a change of layout.
        why: the reason, if it stays dense.

    Examples:
        >>> timing = LayerTiming("0", 0.05, {"dense": 3e-4, "sparse": 1e-4}, "sparse")
        >>> round(timing.gain, 6)
        3.0
    """

    layer: str
    density: float
    seconds: Mapping[str, float]
    chosen: str
    why: str = ""

    @property
    def gain(self) -> float:
        """How many times as fast as dense the layer runs as it was chosen."""
        return self.seconds["dense"] / self.seconds[self.chosen] if self.seconds else 1.0


def interleaved(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each call, as its fastest quarter of turns takes at most; of a median, a busy machine makes anything.

    The calls take turns, so that a busy moment slows all of them.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    until = time.perf_counter() + SECONDS
    while len(next(iter(seconds.values()))) < 3 or (
        time.perf_counter() < until and len(next(iter(seconds.values()))) < MOST
    ):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.quantiles(runs, n=4)[0] for name, runs in seconds.items()}
