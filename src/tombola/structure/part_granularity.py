"""Attention heads, hidden neurons and declared channels as units."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.structure.declared_parts import Kind, missing
from tombola.structure.found_neurons import found_neurons
from tombola.structure.graph import Probe
from tombola.structure.part_search import FoundParts, found_parts, placed
from tombola.structure.placed_parts import PlacedPart
from tombola.structure.prunable_rule import LeftOutWarning
from tombola.structure.units import Units, check_scope, never_empty
from tombola.tickets import Mask, Scope, modules_of, parameters_of


@dataclass(frozen=True)
class PartUnits:
    """Units of one kind inside the parts of a network that are known by names or declared (`tombola.structure.Part`).

    Args:
        kind: `head`, an attention head with its rows of query, key and value and its columns of the layer that mixes
            the heads; `neuron`, a hidden neuron of a feed-forward part with its column of the layer behind, which a
            trace finds where no name is known; or `channel`, of declared parts only.
    """

    kind: Kind = "head"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def name(self) -> str:
        """What `granularity` calls it."""
        return self.kind

    def check(self, density: float, scope: Scope) -> None:
        """TombolaError for a scope that shares weights."""
        check_scope(self.name, scope)

    def units(self, model: nn.Module, probe: Probe) -> UnitsOfParts:
        """The units of a network; TombolaError if it has none of this kind that are known."""
        parameters = parameters_of(model).keys()
        return UnitsOfParts(
            tuple(part.group(parameters) for part in parts_of_kind(model, probe, self.kind, found_parts(model, probe)))
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


class UnitsOfParts(Units):
    """Units that compete with those of the same kind in other parts; no part may lose all of them."""

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept units of each part, by the scores of weights; arguments as of `tombola.select`.

        Raises:
            TombolaError: if a part would keep none.
        """
        return never_empty(super().choose(scores, density, scope=scope, within=within, floor=floor))
