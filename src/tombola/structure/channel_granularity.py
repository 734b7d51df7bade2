"""Channels: filters and neurons, with all that lives and dies with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from tombola.fields import check_fields
from tombola.structure.declared_parts import parts_of
from tombola.structure.trace import Probe, wiring_of
from tombola.structure.units import Reduction, UnitGroup, Units, check_scope, never_empty
from tombola.structure.wiring import INPUTS, Wiring
from tombola.tickets import Mask, Scope


@dataclass(frozen=True)
class Channels:
    """Whole channels: a filter or neuron goes with its bias, its norm's scale and shift, and so emits exactly 0.

    What only removed channels feed, or what feeds only removed channels, goes too. reduction: how the scores of a
    channel's weights become the channel's. The layers that give the network's outputs keep theirs.
    """

    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def name(self) -> str:
        return "channel" if self.reduction == "sum" else f"channel:{self.reduction}"

    def check(self, density: float, scope: Scope) -> None:
        check_scope(self.name, scope)

    def units(self, model: nn.Module, probe: Probe) -> ChannelUnits:
        parts = parts_of(model)
        declared = any(own.kind == "channel" for own in parts)
        return ChannelUnits(wiring_of(model, probe, parts, untraced=declared), self.reduction)


@dataclass(frozen=True, eq=False)
class ChannelUnits:
    """The channels of one network."""

    wiring: Wiring
    reduction: Reduction = "sum"

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept channels; TombolaError if a layer would be left with none."""
        return never_empty(self._units.choose(scores, density, scope=scope, within=within, floor=floor))

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        dead = self.wiring.spread({name: ~kept[name] for name in kept}, silencing=True)
        everything = Units(self.groups, self.reduction)
        alive = {group.name: ~dead[group.name] for group in everything.groups}
        return everything.expand(Mask.of(alive, kept.ties), parameters)

    @property
    def groups(self) -> tuple[UnitGroup, ...]:
        """The channels of every layer, and what they own of its parameters."""
        return tuple(group for group in self.wiring.groups if group.slices)

    @cached_property
    def _units(self) -> Units:
        return Units(self.wiring.groups, self.reduction)

    @property
    def output_norms(self) -> set[str]:
        """The norms that give the network's outputs."""
        given = {g.name for g in self.wiring.groups if g.slices and not any(part.scored for part in g.slices)}
        return {self.wiring.norms.get(name, name) for name in given if not name.endswith(INPUTS)}

    def of_norms(self, kept: Mask) -> Mask:
        """The kept channels, from those that each norm keeps."""
        owners = {norm: name for name, norm in self.wiring.norms.items()}
        groups = {group.name for group in self.wiring.groups}
        named = {owners.get(norm, norm): kept[norm] for norm in kept}
        return Mask.of({name: own for name, own in named.items() if name in groups}, kept.ties)

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        return self._units.removed(kept)

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        return self._units.kept(removed)
