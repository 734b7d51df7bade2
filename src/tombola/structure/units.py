"""Units: which slices of which parameters are kept or removed together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.tickets import Mask, Scope, select

Reduction = Literal["sum", "mean", "l2"]


@dataclass(frozen=True)
class Slice:
    """Where the units of a group lie in one parameter.

    positions: for each unit, its indices along `dim`; `dim` None means that the whole parameter belongs to the
    group's single unit. scored: whether these elements count when a score is reduced to units; a consumer's
    slice may live and die with a unit without saying what the unit is worth.
    """

    parameter: str
    dim: int | None
    positions: tuple[tuple[int, ...], ...] = ()
    scored: bool = True

    def elements(self, tensor: Tensor, unit: int) -> Tensor:
        """The part of a parameter-shaped tensor that belongs to one unit."""
        if self.dim is None:
            return tensor
        return tensor.index_select(self.dim, torch.tensor(self.positions[unit], device=tensor.device))


@dataclass(frozen=True)
class UnitGroup:
    """Units of one kind that compete with each other: `size` of them, and their slices in every parameter."""

    name: str
    size: int
    slices: tuple[Slice, ...]

    def __post_init__(self) -> None:
        for part in self.slices:
            if len(part.positions) != (0 if part.dim is None else self.size):
                raise TombolaError(
                    f"group '{self.name}' has {self.size} units but its slice of '{part.parameter}' places "
                    f"{len(part.positions)}; give one tuple of positions a unit"
                )
            if part.dim is None and self.size != 1:
                raise TombolaError(
                    f"group '{self.name}' has {self.size} units; only a single unit can own '{part.parameter}' whole"
                )


@dataclass(frozen=True)
class Units:
    """All unit groups of a network: from scores of weights to scores of units, from kept units to a mask."""

    groups: tuple[UnitGroup, ...]
    reduction: Reduction = "sum"

    def reduce(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One score a unit: sum, mean or L2 norm of the scores of its elements, as a vector for each group."""
        return {g.name: torch.stack([self._score(g, unit, scores) for unit in range(g.size)]) for g in self.groups}

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept units: the highest-scored share."""
        return select(self.reduce(scores), density, scope=scope, within=within, floor=floor)

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask over parameters: an element is dead if any unit that it belongs to is removed."""
        alive: dict[str, Tensor] = {}
        for group in self.groups:
            self._check_inside(group, parameters)
            removed = (~kept[group.name]).nonzero().flatten().tolist()
            for part in group.slices:
                positions = alive.setdefault(
                    part.parameter, torch.ones(parameters[part.parameter].shape, dtype=torch.bool)
                )
                if part.dim is None and removed:
                    positions.fill_(False)
                elif removed and part.dim is not None:
                    dead = [index for unit in removed for index in part.positions[unit]]
                    positions.index_fill_(part.dim, torch.tensor(dead, dtype=torch.long), False)
        return Mask.of(alive, kept.ties)

    @staticmethod
    def _check_inside(group: UnitGroup, parameters: Mapping[str, Tensor]) -> None:
        for part in group.slices:
            shape = tuple(parameters[part.parameter].shape) if part.parameter in parameters else "missing"
            last = max((index for unit in part.positions for index in unit), default=-1)
            if shape == "missing" or (part.dim is not None and not (part.dim < len(shape) and last < shape[part.dim])):
                raise TombolaError(
                    f"group '{group.name}' has a slice that does not fit '{part.parameter}', which is {shape} in this "
                    "model; make the groups from the same model"
                )

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        """The removed units of each group, by number, as a ticket stores them."""
        return {name: tuple((~kept[name]).nonzero().flatten().tolist()) for name in kept}

    def _score(self, group: UnitGroup, unit: int, scores: Mapping[str, Tensor]) -> Tensor:
        parts = [
            part.elements(scores[part.parameter], unit).flatten()
            for part in group.slices
            if part.scored and part.parameter in scores
        ]
        if not parts:
            raise TombolaError(f"no score covers group '{group.name}'; use a score of one of its parameters")
        values = torch.cat(parts)
        return {"sum": values.sum, "mean": values.mean, "l2": values.norm}[self.reduction]()
