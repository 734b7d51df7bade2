"""Attention heads, hidden neurons and declared channels as units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from tombola.fields import check_fields
from tombola.structure.declared_parts import Kind, missing, parts_of, unit_group
from tombola.structure.found_parts import found_neurons
from tombola.structure.graph import Probe
from tombola.structure.units import Units, check_scope, never_empty
from tombola.tickets import Mask, Scope


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
        parts = [part for part in parts_of(model) if part.kind == self.kind]
        if self.kind == "neuron" and not parts:
            parts += found_neurons(model, probe)
        groups = tuple(unit_group(part, model) for part in parts)
        if not groups:
            raise missing(self.kind, f"{self.kind}s")
        return UnitsOfParts(groups)


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
