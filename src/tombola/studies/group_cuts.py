"""What a network loses with the units of each group alone, and the density of each group that follows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tombola.errors import TombolaError
from tombola.evidence import Measure
from tombola.shrinking import Target

STEPS = 20
"""Halvings by which the loss is found that reaches a target."""


@dataclass(frozen=True)
class GroupCut:
    """One group at one density, all others whole.

    Args:
        group: its name.
        layers: whose channels, heads or neurons are cut with it.
        units: how many it has.
        kept: how many of them stay.
        metric: on the validation split, without any training after the cut.
        flops: of a sample, as a share of the whole network's.
        parameters: as a share of the whole network's.
        seconds: of a call of the smaller network.
    """

    group: str
    layers: tuple[str, ...]
    units: int
    kept: int
    metric: float
    flops: float
    parameters: float
    seconds: float

    @property
    def density(self) -> float:
        """The share of its units that stays."""
        return self.kept / self.units


@dataclass(frozen=True, repr=False)
class Sensitivity:
    """What each group of a network's units is worth. Printed, it is a table.

    Args:
        metric: of the whole network on the validation split.
        seconds: of a call of the whole network.
        samples: of a call.
        measure: what the metric is.
        cuts: each group at each density.
        whole_groups: the names of those that can keep no fewer units, as widths that are multiples ask.
    """

    metric: float
    seconds: float
    samples: int
    measure: Measure
    cuts: tuple[GroupCut, ...]
    whole_groups: tuple[str, ...]
    _share: Callable[[Mapping[str, float]], float] = field(repr=False, compare=False)

    @property
    def groups(self) -> dict[str, list[GroupCut]]:
        """The cuts by group, from the densest on."""
        found: dict[str, list[GroupCut]] = {}
        for own in sorted(self.cuts, key=lambda cut: -cut.kept):
            found.setdefault(own.group, []).append(own)
        return {name: found[name] for name in dict.fromkeys(own.group for own in self.cuts)}

    def loss(self, cut: GroupCut) -> float:
        """How much worse the metric is than the whole network's."""
        return (cut.metric - self.metric) * -self.measure.sign

    def scope(self, *, tolerance: float | None = None, flops: float | None = None) -> dict[str, float]:
        """A density for each group, as `tombola.select` and methods take it as `scope`.

        Each group keeps as little as costs at most the tolerance when it alone is cut, by lines between the densities
        that were measured. No group falls below the lowest of these.

        Args:
            tolerance: how much worse the metric may be for each group, in the metric's unit.
            flops: in place of a tolerance, the share of FLOPs that all cuts together leave at most; of all tolerances
                the smallest that does.

        Raises:
            TombolaError: if neither is given, or both; or the FLOPs cannot be reached.
        """
        if (tolerance is None) == (flops is None):
            raise TombolaError("give a tolerance or flops, as sensitivity.scope(flops=0.5)")
        if tolerance is not None:
            if not tolerance >= 0:
                raise TombolaError(f"the tolerance is {tolerance:g}; give at least 0, as 0.01")
            return self._within(tolerance)
        assert flops is not None
        Target(flops=flops)
        low, high = 0.0, max([0.0, *map(self.loss, self.cuts)])
        least = self._share(self._within(high))
        if least > flops:
            raise TombolaError(
                f"flops={flops:g} cannot be reached: at the lowest densities that were measured "
                f"{math.ceil(1e4 * least) / 1e4:g} of the FLOPs stay; ask for that or more, or measure lower densities"
            )
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._share(self._within(middle)) <= flops else (middle, high)
        return self._within(high)

    def _within(self, tolerance: float) -> dict[str, float]:
        lowest = {
            name: _lowest([(1.0, 0.0), *((c.density, self.loss(c)) for c in cuts)], tolerance, cuts[0].units)
            for name, cuts in self.groups.items()
        }
        return lowest | dict.fromkeys(self.whole_groups, 1.0)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        cuts = [asdict(own) | {"density": own.density, "loss": self.loss(own)} for own in self.cuts]
        return {"metric": self.metric, "seconds": self.seconds, "samples": self.samples, "cuts": cuts}

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """The head and the rows of the table: by group and density, points of the metric, FLOPs and time."""
        head = ["group", "layers", "units", "kept", "metric", "change", "FLOPs", "parameters", "a call"]
        rows = [
            [
                own.group,
                str(len(own.layers)),
                f"{own.units:,}",
                f"{own.kept:,} ({own.density:.0%})",
                self.measure.text(own.metric),
                self.measure.signed(own.metric - self.metric),
                f"{own.flops:.1%}",
                f"{own.parameters:.1%}",
                f"{1e3 * own.seconds:.3g} ms",
            ]
            for cuts in self.groups.values()
            for own in cuts
        ]
        return head, rows

    @property
    def whole(self) -> str:
        """What the whole network does, in words."""
        metric = self.measure.text(self.metric)
        return f"whole: {metric} on the validation split, {1e3 * self.seconds:.3g} ms a call of {self.samples} samples"

    def __str__(self) -> str:
        head, rows = self.rows()
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
        ]
        return "\n".join([*map(str.rstrip, lines), self.whole])

    __repr__ = __str__


def _lowest(points: Sequence[tuple[float, float]], tolerance: float, units: int) -> float:
    """The lowest density at which a group costs at most the tolerance, by lines between points from the densest on."""
    lowest = 1.0
    for (dense, before), (sparse, after) in itertools.pairwise(points):
        if after <= tolerance:
            lowest = sparse
            continue
        lowest = dense - (dense - sparse) * (tolerance - before) / (after - before)
        break
    return max(math.ceil(lowest * units - 1e-9), 1) / units
