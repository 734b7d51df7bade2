"""Targets that people have, as half of the FLOPs, and the densest choice of units that reaches one."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

import torch
from torch import nn

from tombola.errors import TombolaError, unknown
from tombola.fields import check_fields
from tombola.shrinking.small_network import smaller
from tombola.shrinking.small_sizes import Size, SmallSizes
from tombola.sparse_inference import interleaved
from tombola.structure import NM, Filters, Granularity, QueryKey, Weights, check_is_granularity, in_mode
from tombola.tickets import Mask, device_of

POINTS, TRIES = 4, 4
"""Densities of which the latency is measured at first, and how often the one between them is corrected."""
NEAR = 0.75
"""The share of what was asked for below which it is said that a network is much smaller."""
AHEAD = 0.03
"""How much faster than asked a network is looked for, since clocks vary."""

FIXED: Mapping[type, str] = {
    NM: "their pattern says how many weights stay",
    QueryKey: "they are single weights, with whose zeros a network computes",
    Filters: "as many go as so many blocks have",
}
"""Why the number of some units cannot be solved for."""

Choice = Callable[[float], Mask]
"""The mask of weights that a density keeps; TombolaError where it cannot keep so few."""


class TargetWarning(UserWarning):
    """A network is much smaller than was asked for, since no choice of its units comes nearer."""


class Targets(TypedDict, total=False):
    """What a smaller network shall be, as keyword arguments: the fields of a `Target`, `round_to` and `protect`."""

    flops: float | None
    parameters: float | None
    speedup: float | None
    latency: float | None
    samples: int
    round_to: int
    protect: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """How large or fast a network shall be at most; of several, all.

    Args:
        flops: of a sample forward, as a share of the whole network's; above 1, as their number.
        parameters: as a share of the whole network's; above 1, as their number.
        speedup: how many times as fast as the whole network, as PyTorch calls it here.
        latency: seconds of a call, as PyTorch calls it here.
        samples: of a call whose time is measured.

    Raises:
        TombolaError: if a number is out of range.
    """

    flops: float | None = None
    parameters: float | None = None
    speedup: float | None = None
    latency: float | None = None
    samples: int = 16

    def __post_init__(self) -> None:
        check_fields(self)
        examples = {"flops": 0.5, "parameters": 0.5, "latency": 0.002}
        for name, example in examples.items():
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TombolaError(f"{name} is {value:g}; give a number above 0, as {example:g}")
        if self.speedup is not None and not self.speedup >= 1:
            raise TombolaError(f"speedup is {self.speedup:g}; give how many times as fast, at least 1, as 2")
        if self.samples < 1:
            raise TombolaError(f"samples is {self.samples}; give at least 1 in a call")

    @property
    def asked(self) -> dict[str, float]:
        """What was asked for, by name."""
        return {own.name: getattr(self, own.name) for own in fields(self) if own.name in NAMES and self._asks(own.name)}

    @property
    def is_measured(self) -> bool:
        """Whether a clock decides."""
        return self._asks("speedup") or self._asks("latency")

    def _asks(self, name: str) -> bool:
        return getattr(self, name) is not None

    def counted_within(self, size: Size, whole: Size) -> bool:
        """Whether a network is as small as asked."""
        pairs = ((self.flops, size.flops, whole.flops), (self.parameters, size.parameters, whole.parameters))
        return all(asked is None or own <= (asked * of if asked <= 1 else asked) for asked, own, of in pairs)

    def gap(self, seconds: Mapping[str, float]) -> float:
        """How many times too slow a network is; at most 1 if it is as fast as asked. Seconds: "whole" and "small"."""
        gaps = [1e-9]
        if self.speedup is not None:
            gaps.append(seconds["small"] * self.speedup / seconds["whole"])
        if self.latency is not None:
            gaps.append(seconds["small"] / self.latency)
        return max(gaps)

    def __str__(self) -> str:
        return " and ".join(f"{name}={value:g}" for name, value in self.asked.items())


def check_takes_target(kind: Granularity) -> None:
    """Refuse units whose number no target can decide, or that cannot be cut out.

    Raises:
        TombolaError: it is no granularity, or one of these; it says why.
    """
    check_is_granularity(kind)
    for fixed, why in FIXED.items():
        if isinstance(kind, fixed):
            raise TombolaError(
                f"units of kind {kind.name} take no target, since {why}; give channels, heads, neurons or blocks "
                "(--granularity channel, head, neuron, block), or a density in place of the target"
            )


def check_can_be_cut(kind: Granularity) -> None:
    """Refuse units of which no group can be cut out by itself.

    Raises:
        TombolaError: it is no granularity, or one of these.
    """
    check_is_granularity(kind)
    if isinstance(kind, Weights | NM | QueryKey | Filters):
        raise TombolaError(
            f"units of kind {kind.name} are in no groups that can be cut out alone; give channels, heads, neurons or "
            "blocks (--granularity channel, head, neuron, block)"
        )


def target_of(targets: Mapping[str, Any]) -> Target:
    """The target among keyword arguments, which may also round widths and protect layers.

    Raises:
        TombolaError: if an argument is unknown, or out of range.
    """
    known = [*(own.name for own in fields(Target)), "round_to", "protect"]
    for name in targets:
        if name not in known:
            raise unknown("target", name, known)
    return Target(**{name: value for name, value in targets.items() if name not in ("round_to", "protect")})


NAMES = ("flops", "parameters", "speedup", "latency")


@dataclass(frozen=True)
class Reached:
    """The densest choice that reaches a target.

    Args:
        density: the kept share of units.
        mask: of weights.
        counted: FLOPs and parameters of the smaller network, as shares of the whole one's.
        measured: seconds of a call of the whole and of the smaller network, where a clock decides.
    """

    density: float
    mask: Mask
    counted: Mapping[str, float]
    measured: Mapping[str, float] = field(default_factory=dict)


def reach(target: Target, choose: Choice, count: int, sizes: SmallSizes, model: nn.Module, calls: Any) -> Reached:
    """Find the densest choice of units that reaches a target.

    Args:
        target: what is asked for.
        choose: the mask of weights at a density.
        count: how many units there are.
        sizes: counts what a mask leaves of the network.
        model: the network, on the device where it is measured.
        calls: calls a network on the samples whose time is measured; None if no clock decides.

    Raises:
        TombolaError: if no choice is small or fast enough; it says which comes nearest.
    """
    if count < 1:
        choose(1.0)  # may say why nothing can be cut out
        raise TombolaError("all that could be removed is protected; protect fewer layers")
    search = _Search(target, choose, count, sizes)
    units = search.densest()
    if not target.is_measured:
        reached = search.reached(units)
        search.warn_if_far(units)
        return reached
    return _fast_enough(search, units, model, calls)


class _Search:
    """Counts the choices of a network, each once."""

    def __init__(self, target: Target, choose: Choice, count: int, sizes: SmallSizes) -> None:
        self.target, self.count, self.sizes = target, count, sizes
        self._choose = choose
        self._known: dict[int, tuple[Mask, Size] | None] = {}

    def at(self, units: int) -> tuple[Mask, Size] | None:
        """The choice of so many units, and its size; None if so few cannot be kept."""
        if units not in self._known:
            self._known[units] = None
            with contextlib.suppress(TombolaError):
                mask = self._choose(units / self.count)
                self._known[units] = mask, self.sizes.of(mask)
        return self._known[units]

    def densest(self) -> int:
        """The largest number of units whose network is small enough."""
        below, above = 0, self.count + 1
        while above - below > 1:
            units = (below + above) // 2
            found = self.at(units)
            if found is None or self.target.counted_within(found[1], self.sizes.whole):
                below = units
            else:
                above = units
        if below == 0 or self.at(below) is None:
            raise self.unreachable(above)
        return below

    def smallest(self) -> int:
        """The smallest number of units that can be kept."""
        low, high = 0, self.count
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.at(middle) is None else (low, middle)
        return high

    def unreachable(self, units: int) -> TombolaError:
        """The error of a target below what the fewest units leave."""
        units = min(units, self.count)
        found = self.at(units)
        if found is None:  # says why
            self._choose(units / self.count)
            raise AssertionError
        nearest = " and ".join(
            f"{name}={math.ceil(1e4 * share) / 1e4:g}"
            for name, share in found[1].share_of(self.sizes.whole).items()
            if name in self.target.asked
        )
        return TombolaError(
            f"{self.target} cannot be reached: the fewest units that may stay, {units:,} of {self.count:,}, leave "
            f"{nearest}; ask for that or more, protect fewer layers, or let layers lose more"
        )

    def warn_if_far(self, units: int) -> None:
        """Warn where the choice is much smaller than asked, and the next one larger."""
        found, following = self.at(units), self.at(units + 1) if units < self.count else None
        if found is None or following is None:
            return
        whole = self.sizes.whole
        left, more = found[1].share_of(whole), following[1].share_of(whole)
        asked = {
            name: value if value <= 1 else value / getattr(whole, name) for name, value in self.target.asked.items()
        }
        if all(left[name] < NEAR * value for name, value in asked.items()):
            nearest = " and ".join(
                f"{name}={left[name]:.4g}, and {more[name]:.4g} with one unit more" for name in asked
            )
            warnings.warn(
                f"{self.target} was asked for, and what is left is {nearest}; other choices come with another "
                "scope, another round_to, or protect= for the layers that lose most",
                TargetWarning,
                stacklevel=4,
            )

    def reached(self, units: int, measured: Mapping[str, float] | None = None) -> Reached:
        found = self.at(units)
        assert found is not None
        mask, size = found
        return Reached(units / self.count, mask, size.share_of(self.sizes.whole), measured or {})


@torch.no_grad()
def _fast_enough(search: _Search, most: int, model: nn.Module, calls: Any) -> Reached:
    """The densest choice of at most so many units that is measured to be as fast as asked."""
    target, least = search.target, search.smallest()
    networks: dict[int, nn.Module] = {}

    def network(units: int) -> nn.Module:
        if units not in networks:
            found = search.at(units)
            assert found is not None
            networks[units] = smaller(model, found[0], search.sizes.probe)[0]
        return networks[units]

    def measure(*units: int) -> dict[int, dict[str, float]]:
        every = {"whole": model} | {str(own): network(own) for own in units}
        with contextlib.ExitStack() as modes:
            for own in every.values():
                modes.enter_context(in_mode(own, "eval"))
            seconds = interleaved({name: (lambda own=own: calls(own)) for name, own in every.items()})
        return {own: {"whole": seconds["whole"], "small": seconds[str(own)]} for own in units}

    points = sorted({round(least + (most - least) * at / (POINTS - 1)) for at in range(POINTS)})
    points = [own for own in points if search.at(own) is not None]
    gaps = {own: target.gap(seconds) for own, seconds in measure(*points).items()}
    best: tuple[int, dict[str, float]] | None = None
    for _ in range(TRIES):
        units = _between(gaps, 1 - AHEAD)
        if best is not None and units <= best[0]:
            break
        seconds = measure(units)[units]
        gaps[units] = target.gap(seconds)
        if gaps[units] <= 1:
            best = units, seconds
            if gaps[units] > 1 - 3 * AHEAD:
                break
    if best is None:
        units = min(gaps, key=lambda own: gaps[own])
        seconds = measure(units)[units]
        if target.gap(seconds) > 1:
            speedup, where = seconds["whole"] / seconds["small"], device_of(model).type
            raise TombolaError(
                f"{target} cannot be reached here: the fastest smaller network that was measured is {speedup:.2f} × "
                f"as fast as the whole one; a call with {target.samples} samples takes {1e3 * seconds['small']:.3g} ms "
                f"and the whole one's {1e3 * seconds['whole']:.3g} ms, on {where} with {torch.get_num_threads()} "
                "threads; ask for less, or give more samples a call"
            )
        best = units, seconds
    return search.reached(*best)


def _between(gaps: Mapping[int, float], wanted: float) -> int:
    """The number of units at which a network is as fast as wanted, by a line between the two nearest measured ones."""
    fast = [own for own in gaps if gaps[own] <= wanted]
    if not fast:
        return min(gaps)
    low = max(fast)
    high = min((own for own in gaps if own > low), default=low)
    if high == low:
        return low
    share = (wanted - gaps[low]) / max(gaps[high] - gaps[low], 1e-12)
    return max(low, min(high - 1, low + math.floor((high - low) * share)))
