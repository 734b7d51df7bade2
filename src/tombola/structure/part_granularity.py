"""Attention heads, hidden neurons and declared channels as units."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import LATER, check_fields
from tombola.structure.declared_parts import Kind, missing
from tombola.structure.found_neurons import found_neurons
from tombola.structure.graph import Probe
from tombola.structure.part_search import FoundParts, found_parts, placed
from tombola.structure.placed_parts import PlacedPart
from tombola.structure.prunable_rule import LeftOutWarning
from tombola.structure.units import UnitGroup, Units, check_scope, never_empty
from tombola.structure.widths import check_names, check_widths, is_named, of_whole_widths, step_of, without
from tombola.tickets import Mask, Scope, modules_of, parameters_of, select


@dataclass(frozen=True)
class PartUnits:
    """Units of one kind inside the parts of a network that are known by names or declared (`tombola.structure.Part`).

    Args:
        kind: `head`, an attention head with its rows of query, key and value and its columns of the layer that mixes
            the heads; `neuron`, a hidden neuron of a feed-forward part with its column of the layer behind, which a
            trace finds where no name is known; or `channel`, of declared parts only.
        round_to: what the number of neurons in each part is a multiple of, as 8, where it has as many; of heads, their
            channels together. The network then keeps at most the density.
        protect: names of parts and layers, or patterns, whose units all stay. The density is that of the other units.
    """

    kind: Kind = "head"
    round_to: int = field(default=1, repr=False, metadata=LATER)
    protect: tuple[str, ...] = field(default=(), repr=False, metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self)
        check_widths(self.round_to, self.protect)

    @property
    def name(self) -> str:
        """What `granularity` calls it."""
        return self.kind

    def check(self, density: float, scope: Scope) -> None:
        """TombolaError for a scope that shares weights."""
        check_scope(self.name, scope)

    def units(self, model: nn.Module, probe: Probe) -> UnitsOfParts:
        """The units of a network; TombolaError if it has none of this kind that are known."""
        check_names(self.protect, model)
        parameters = parameters_of(model).keys()
        return UnitsOfParts(
            tuple(part.group(parameters) for part in parts_of_kind(model, probe, self.kind, found_parts(model, probe))),
            round_to=self.round_to,
            protect=self.protect,
        )


def parts_of_kind(model: nn.Module, probe: Probe, kind: Kind, found: FoundParts) -> tuple[PlacedPart, ...]:
    """The parts of a network whose units are of a kind; a LeftOutWarning names those that cannot be cut.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.
        kind: of the units.
        found: the network's parts.

    Raises:
        TombolaError: if there are none that are known.
    """
    parts = found.of(kind)
    if kind == "neuron" and not parts:
        modules = modules_of(model)
        parts = tuple(placed(part, "", modules) for part in found_neurons(model, probe))
    refused = [why for part, why in found.refused if part.kind == kind]
    if not parts and refused:
        raise TombolaError(f"the {kind}s {refused[0]}; prune weights or blocks instead")
    if not parts:
        raise missing(kind, f"{kind}s")
    if refused:
        others = f", and of {len(refused) - 1} other modules" if len(refused) > 1 else ""
        warnings.warn(f"{kind}s that cannot be cut out stay whole: those {refused[0]}{others}", LeftOutWarning, 3)
    return parts


@dataclass(frozen=True)
class UnitsOfParts(Units):
    """Units that compete with those of the same kind in other parts; no part may lose all of them.

    Args:
        round_to, protect: see `PartUnits`.
    """

    round_to: int = field(default=1, kw_only=True)
    protect: tuple[str, ...] = field(default=(), kw_only=True)

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept units of each part, by the scores of weights; arguments as of `tombola.select`.

        Raises:
            TombolaError: if a part would keep none.
        """
        return best_of_groups(
            self.reduce(scores),
            self.groups,
            round_to=self.round_to,
            protect=self.protect,
            density=density,
            scope=scope,
            within=within,
            floor=floor,
        )


def best_of_groups(
    worths: Mapping[str, Tensor],
    groups: Sequence[UnitGroup],
    *,
    round_to: int,
    protect: Sequence[str],
    density: float | None,
    scope: Scope,
    within: Mask | None,
    floor: int,
) -> Mask:
    """The kept units of some groups that compete, none of which may lose all.

    Args:
        worths: what the units of each group are worth.
        groups: all groups of the network.
        round_to, protect: see `PartUnits`.
        density, scope, within, floor: as of `tombola.select`.
    """
    protected = {group.name for group in groups if is_protected(group, protect)}
    worths = without(worths, protected)
    kept = never_empty(select(worths, density, scope=scope, within=within, floor=floor))
    steps = {group.name: step_of(round_to, _width(group)) for group in groups}
    return of_whole_widths(kept, worths, steps, within, dict.fromkeys(worths, floor))


def is_protected(group: UnitGroup, protect: Sequence[str]) -> bool:
    """Whether a part, or a layer that makes its units, is named by one of some patterns."""
    return any(is_named(name, protect) for name in (group.name, *(own.parameter for own in group.slices if own.scored)))


def _width(group: UnitGroup) -> int:
    """How many channels wide a unit is."""
    return max((len(own.positions[0]) for own in group.slices if own.positions), default=1)
