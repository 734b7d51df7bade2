"""Where the units of a part lie in each tensor, as data: so they can be scored, masked and cut whatever the layout."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tombola.structure.declared_parts import Kind
from tombola.structure.units import Slice, UnitGroup

Axes = dict[int, Tensor]
"""The positions that stay, by dimension of a tensor."""

Role = Literal["makes", "value", "takes", "beside"]
"""makes: gives a unit its numbers; value: does so, and the unit is silent where this is zero; takes: reads the unit.

beside: a buffer or table that a unit has, but by which it is not scored.
"""


@dataclass(frozen=True)
class Place:
    """Where the units lie along one dimension of a tensor: as (outer, units, inner), from `start` on.

    Args:
        tensor: the name of the parameter or buffer.
        dim: the dimension.
        inner: how many consecutive positions a unit owns, as the size of a head.
        outer: how often all units follow each other, as 3 where queries, keys and values are stacked.
        start: the position of the first.
        role: what the tensor is for the units.
    """

    tensor: str
    dim: int
    inner: int = 1
    outer: int = 1
    start: int = 0
    role: Role = "makes"

    def positions(self, unit: int, size: int) -> tuple[int, ...]:
        """The positions of a unit among so many.

        Examples:
            >>> Place("qkv.weight", 0, inner=2, outer=3).positions(1, 4)
            (2, 3, 10, 11, 18, 19)
        """
        first = self.start + unit * self.inner
        return tuple(first + run * size * self.inner + i for run in range(self.outer) for i in range(self.inner))


@dataclass(frozen=True)
class Count:
    """An attribute that says how many units there are, or a number that goes with them.

    Args:
        module: the module's name.
        attribute: the attribute's, or `config.` and the name of a field.
        factor: the attribute's value for each unit.
        base: what it is without any.
    """

    module: str
    attribute: str
    factor: int
    base: int = 0


@dataclass(frozen=True)
class PlacedPart:
    """Units that live and die alone, each with all that it owns.

    Args:
        kind: `head`, `neuron` or `channel`.
        name: the name of the layer or tensor that takes the units.
        size: how many units there are.
        places: where they lie.
        counts: the attributes that say how many there are.
        freed: names of modules whose own code allows no other number of units, and which become equal ones that do.
        owner: the name of the module that holds it all.
        layers: the names of the layers that make the units; those of queries and keys come first.
    """

    kind: Kind
    name: str
    size: int
    places: tuple[Place, ...]
    counts: tuple[Count, ...] = ()
    freed: tuple[str, ...] = ()
    owner: str = ""
    layers: tuple[str, ...] = ()

    def group(self, parameters: Collection[str]) -> UnitGroup:
        """The units with what they own of these parameters."""
        slices = (
            Slice(
                place.tensor,
                place.dim,
                tuple(place.positions(unit, self.size) for unit in range(self.size)),
                scored=place.role in ("makes", "value"),
            )
            for place in self.places
            if place.tensor in parameters
        )
        return UnitGroup(self.name, self.size, tuple(slices))

    def dead(self, alive: Mapping[str, Tensor]) -> tuple[int, ...]:
        """The units that a mask silences: those that nothing takes, or of which no value is alive.

        Args:
            alive: the mask, by the parameter's name.
        """
        silent = torch.zeros(self.size, dtype=torch.bool)
        for role in ("takes", "value"):
            places = [place for place in self.places if place.role == role]
            if places and all(place.tensor in alive for place in places):
                totals = [self._totals(place, alive[place.tensor]) for place in places]
                silent |= torch.stack(totals).sum(0) == 0
        return tuple(silent.nonzero().flatten().tolist())

    def removed(self, units: Iterable[int]) -> dict[tuple[str, int], set[int]]:
        """The positions of these units, by tensor and dimension."""
        units, gone = tuple(units), dict[tuple[str, int], set[int]]()
        for place in self.places:
            numbers = (number for unit in units for number in place.positions(unit, self.size))
            gone.setdefault((place.tensor, place.dim), set()).update(numbers)
        return gone

    def _totals(self, place: Place, alive: Tensor) -> Tensor:
        rows = tuple(place.positions(unit, self.size) for unit in range(self.size))
        return Slice(place.tensor, place.dim, rows).totals(alive.float(), self.size)


Removed = Sequence[tuple[PlacedPart, tuple[int, ...]]]
"""Parts and the units of each that go."""


def axes_of_parts(removed: Removed, tensors: Mapping[str, Tensor]) -> dict[str, Axes]:
    """The positions that stay in each tensor that becomes smaller.

    Args:
        removed: the units that go.
        tensors: the network's parameters and buffers, by name.
    """
    gone: dict[tuple[str, int], set[int]] = {}
    for part, units in removed:
        for key, positions in part.removed(units).items():
            gone.setdefault(key, set()).update(positions)
    axes: dict[str, Axes] = {}
    for (name, dim), positions in gone.items():
        if positions and name in tensors:
            stay = [number for number in range(tensors[name].shape[dim]) if number not in positions]
            axes.setdefault(name, {})[dim] = torch.tensor(stay)
    return axes
