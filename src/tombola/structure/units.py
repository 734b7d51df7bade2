"""Units: which slices of which parameters are kept or removed together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, zip_longest
from numbers import Integral
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tombola.errors import TombolaError
from tombola.tickets import Mask, Scope, select, shares_weights

Reduction = Literal["sum", "mean", "l2"]


@dataclass(frozen=True)
class Slice:
    """Where the units of a group lie in one parameter.

    Args:
        parameter: the parameter's name.
        dim: the dimension along which they lie; None if the whole parameter belongs to the group's single unit.
        positions: for each unit, its indices along `dim`.
        scored: whether these elements count when a unit is scored. The weights that a layer behind has for a channel
            die with the channel, but do not count.
    """

    parameter: str
    dim: int | None
    positions: tuple[tuple[int, ...], ...] = ()
    scored: bool = True

    def totals(self, tensor: Tensor, size: int) -> Tensor:
        """The sum of each unit's elements of a tensor.

        Args:
            tensor: of the parameter's shape.
            size: how many units the group has.
        """
        if self.dim is None:
            return tensor.sum().reshape(1)
        sums = tensor.movedim(self.dim, 0).flatten(1).sum(1) if tensor.ndim > 1 else tensor
        if self.positions == one_each(len(sums)):
            return sums
        # Row n has the n-th position of each unit, or that of a zero. No index_add_: its order varies on a GPU.
        rows = list(zip_longest(*self.positions, fillvalue=len(sums)))
        if not rows:
            return sums.new_zeros(size)
        return F.pad(sums, (0, 1))[torch.tensor(rows, device=sums.device)].sum(0)

    def living(self, alive: Tensor, size: int) -> Tensor:
        """Whether each unit has an element that a mask keeps.

        Args:
            alive: the parameter's mask.
            size: how many units the group has.
        """
        if self.dim is None or alive.ndim == 1 or not alive.numel():
            return self.totals(alive.float(), size) > 0
        # A fraction of the time that `any`, or `amax` over several axes, takes.
        blocks = alive.view(torch.uint8).reshape(-1, alive.shape[self.dim], math.prod(alive.shape[self.dim + 1 :]))
        along = blocks.amax(0).amax(1)
        return replace(self, dim=0).totals(along.float(), size) > 0


@lru_cache(maxsize=256)
def one_each(size: int) -> tuple[tuple[int, ...], ...]:
    """The positions of units of which each has the one of its number.

    Examples:
        >>> one_each(3)
        ((0,), (1,), (2,))
    """
    return tuple((position,) for position in range(size))


@dataclass(frozen=True)
class UnitGroup:
    """Units of one kind that compete with each other, as the channels of a layer.

    Args:
        name: the group's name, as that of the layer.
        size: how many units it has.
        slices: where the units lie in each parameter.

    Raises:
        TombolaError: if a slice has positions for another number of units.
    """

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
    """The unit groups of a network: scores of weights become scores of units, kept units become a mask of weights.

    Args:
        groups: the groups.
        reduction: whether a unit's score is the sum, the mean or the L2 norm of its weights' scores.

    Examples:
        >>> rows = UnitGroup("fc", 2, (Slice("fc.weight", 0, ((0,), (1,))),))
        >>> weights = {"fc.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
        >>> units = Units((rows,))
        >>> units.reduce(weights)["fc"].tolist()
        [3.0, 7.0]
        >>> kept = units.choose(weights, 0.5, scope="global", within=None, floor=0)
        >>> units.expand(kept, weights)["fc.weight"].tolist()
        [[False, False], [True, True]]
    """

    groups: tuple[UnitGroup, ...]
    reduction: Reduction = "sum"

    def reduce(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scores of units, one vector a group.

        Groups that no score covers are left out, and so keep all their units.

        Args:
            scores: the scores of weights, one tensor a parameter.

        Raises:
            TombolaError: if no group is covered.
        """
        reduced = {group.name: self._reduced(group, scores) for group in self.groups if _covered(group, scores)}
        if not any(part.scored for group in self.groups for part in group.slices):
            raise TombolaError("nothing in this network can be pruned so; prune weights instead")
        if not reduced:
            owners = [group for group in self.groups if any(part.scored for part in group.slices)]
            names = ", ".join(f"'{group.name}'" for group in owners[:3])
            raise TombolaError(
                f"no score covers group {names}; score one of its parameters, or where its weight is computed anew in "
                "each call, as a standardised one, make that a plain one first"
            )
        return reduced

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept units: those with the highest scores; arguments as of `tombola.select`."""
        return select(self.reduce(scores), density, scope=scope, within=within, floor=floor)

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask of weights: an element is dead if any unit to which it belongs is removed.

        Args:
            kept: the kept units, one vector a group; groups that are missing keep all.
            parameters: the network's, by name.

        Raises:
            TombolaError: if these are another network's units, or a group's slices do not fit the parameters.
        """
        check_kept(kept, self._sizes)
        alive: dict[str, dict[int, Tensor]] = {}  # by parameter and dimension, the positions of no removed unit
        for group in self.groups:
            self._check_fits(group, parameters)
            removed = numbers_of(~kept[group.name]) if group.name in kept else ()
            for part in group.slices:
                axes, shape = alive.setdefault(part.parameter, {}), parameters[part.parameter].shape
                if not removed:
                    continue
                dim = part.dim or 0
                positions = axes.setdefault(dim, torch.ones(shape[dim] if shape else 1, dtype=torch.bool))
                if part.dim is None:
                    positions.fill_(False)
                elif part.positions == one_each(len(positions)):
                    positions &= kept[group.name]
                else:
                    positions[[index for unit in removed for index in part.positions[unit]]] = False
        return Mask.of({name: _product(axes, parameters[name].shape) for name, axes in alive.items()}, kept.ties)

    @staticmethod
    def _check_fits(group: UnitGroup, parameters: Mapping[str, Tensor]) -> None:
        for part in group.slices:
            shape = tuple(parameters[part.parameter].shape) if part.parameter in parameters else "missing"
            last = max(chain.from_iterable(part.positions), default=-1)
            if shape == "missing" or (part.dim is not None and not (part.dim < len(shape) and last < shape[part.dim])):
                raise TombolaError(
                    f"group '{group.name}' has a slice that does not fit '{part.parameter}', which is {shape} in this "
                    "model; make the groups from the same model"
                )

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        """The removed units of each group, by number, as a ticket stores them."""
        return {name: numbers_of(~kept[name]) for name in kept}

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        """The kept units of the groups from which units were removed.

        Args:
            removed: the removed units of each group, by number.

        Raises:
            TombolaError: if they are another network's.
        """
        check_removed(removed, self._sizes)
        kept = {}
        for name, units in removed.items():
            kept[name] = torch.ones(self._sizes[name], dtype=torch.bool)
            kept[name][list(units)] = False
        return Mask.of(kept)

    @property
    def _sizes(self) -> dict[str, int]:
        return {group.name: group.size for group in self.groups}

    def _reduced(self, group: UnitGroup, scores: Mapping[str, Tensor]) -> Tensor:
        parts = [(part, scores[part.parameter]) for part in _covered(group, scores)]
        if self.reduction == "l2":
            return _total([(part, score.square()) for part, score in parts], group.size).sqrt()
        total = _total(parts, group.size)
        if self.reduction == "mean":
            total = total / _total([(part, torch.ones_like(score)) for part, score in parts], group.size)
        return total


def _product(axes: Mapping[int, Tensor], shape: Sequence[int]) -> Tensor:
    """True where the positions along all axes are; along an axis that is missing, all positions are."""
    product = torch.ones((1,) * len(shape), dtype=torch.bool)
    for dim, positions in axes.items():
        product = product & positions.view([-1 if axis == dim else 1 for axis in range(len(shape))])
    return product.expand(shape)


def check_removed(removed: Mapping[str, Sequence[int]], sizes: Mapping[str, int]) -> None:
    """TombolaError if units were removed, by group and number, that a network does not have; sizes: what it has."""
    for name, units in removed.items():
        foreign = [own for own in units if not isinstance(own, Integral) or not 0 <= own < sizes.get(name, 0)]
        if foreign or name not in sizes:
            which = f"{max(foreign, default=0)} of " if foreign or units else "none of "
            raise TombolaError(
                f"the ticket's units are not this network's: it removes {which}'{name}', which has "
                f"{sizes.get(name, 'no')} units here; use the network that it was found on"
            )


def check_kept(kept: Mask, sizes: Mapping[str, int]) -> None:
    """TombolaError if a mask of units has groups, or numbers of units, that a network does not have."""
    for name, bits in kept.bits.items():
        if sizes.get(name) != bits.size:
            has = f"{sizes[name]} units of '{name}'" if name in sizes else f"no units of the name '{name}'"
            raise TombolaError(
                f"the mask of units is another network's: it has {bits.size} of '{name}', and the network has {has}; "
                "use what `choose` or `kept` of this network's units gives"
            )


def numbers_of(chosen: Tensor) -> tuple[int, ...]:
    """The indices at which a bool vector is True."""
    return tuple(chosen.nonzero().flatten().tolist())


def check_scope(granularity: str, scope: Scope) -> None:
    """TombolaError for a scope that shares weights, not units, among layers; granularity: its name in the error."""
    if shares_weights(scope):
        raise TombolaError(
            f"the scope {scope!r} shares weights among layers, not {granularity}s; use global or layerwise"
        )


def never_empty(kept: Mask) -> Mask:
    """The kept units themselves; TombolaError if a group keeps none."""
    if kept.collapsed:
        raise TombolaError(
            f"this density leaves no unit of '{kept.collapsed[0]}'; give floor=1, a higher density or scope='layerwise'"
        )
    return kept


def _covered(group: UnitGroup, scores: Mapping[str, Tensor]) -> list[Slice]:
    """The slices of a group that count and have a score."""
    return [part for part in group.slices if part.scored and part.parameter in scores]


def _total(parts: list[tuple[Slice, Tensor]], size: int) -> Tensor:
    return torch.stack([part.totals(tensor, size) for part, tensor in parts]).sum(0)
