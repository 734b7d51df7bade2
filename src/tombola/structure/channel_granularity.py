"""Channels as units: filters and neurons, with everything that lives and dies with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.structure.declared_parts import parts_of
from tombola.structure.trace import Probe, wiring_of
from tombola.structure.units import Reduction, UnitGroup, Units, check_kept, check_scope, never_empty
from tombola.structure.whole_channels import why_whole
from tombola.structure.wiring import INPUTS, Wiring
from tombola.tickets import Mask, Scope, select


@dataclass(frozen=True)
class SeparateChannels:
    """The channels of each layer by itself, for searches that go layer by layer or norm by norm.

    A removed channel emits exactly 0, as with `Channels`. But where several layers write to one channel, as on a
    residual stream, it can be cut out of the network only if each of them drops it, which seldom happens by chance.

    Args:
        reduction: whether a channel's score is the sum, the mean or the L2 norm of its weights' scores.

    Examples:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> units = SeparateChannels().units(model, lambda network: network(torch.ones(1, 2)))
        >>> mask = units.expand(units.kept({"0": (1,)}), dict(model.named_parameters()))
        >>> mask["0.weight"].tolist()
        [[True, True], [False, False], [True, True]]
        >>> mask["2.weight"].tolist()
        [[True, False, True]]
    """

    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def name(self) -> str:
        """What `granularity` calls it."""
        return "separate-channel"

    def check(self, density: float, scope: Scope) -> None:
        """TombolaError for a scope that shares weights."""
        check_scope(self.name, scope)

    def units(self, model: nn.Module, probe: Probe) -> ChannelUnits:
        """The channels of a network; TombolaError if it can neither be traced nor declares channels."""
        return self._found(model, probe)

    def _found(self, model: nn.Module, probe: Probe, streams: bool = False) -> ChannelUnits:
        parts = parts_of(model)
        declared = any(part.kind == "channel" for part in parts)
        wiring = wiring_of(model, probe, parts, untraced=declared, streams=streams)
        return ChannelUnits(wiring, self.reduction, why_whole(model, wiring))


@dataclass(frozen=True, eq=False)
class ChannelUnits:
    """The channels of one network.

    Args:
        wiring: which channels feed which.
        reduction: see `Channels`.
        whole: why no channel could be cut out, should none be.
    """

    wiring: Wiring
    reduction: Reduction = "sum"
    whole: str = ""

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept channels of each layer, by the scores of weights; arguments as of `tombola.select`.

        Raises:
            TombolaError: if a layer would keep none.
        """
        return never_empty(select(self.worths(scores), density, scope=scope, within=within, floor=floor))

    def worths(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the channels of each layer are worth, from the scores of weights.

        Raises:
            TombolaError: if no channel can go.
        """
        if not any(part.scored for group in self.wiring.groups for part in group.slices):
            raise self.none_goes()
        return self._units.reduce(scores)

    def none_goes(self) -> TombolaError:
        """The error for a network of which no channel can be cut out."""
        why = f": {self.whole}" if self.whole else ""
        return TombolaError(f"no channel of this network can be cut out of it{why}; prune neurons or weights instead")

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask of weights, in which everything that dies with the removed channels is dead."""
        check_kept(kept, {group.name: group.size for group in self.wiring.groups})
        return self.masked({name: ~kept[name] for name in kept}, parameters, kept.ties)

    def masked(self, removed: Mapping[str, Tensor], parameters: Mapping[str, Tensor], ties: int = 0) -> Mask:
        """The mask of weights without the removed channels of each group, and all that dies with them.

        Args:
            removed: by group, True for each removed channel.
            parameters: the network's, by name.
            ties: how many units were chosen by a hash.
        """
        dead = self.wiring.spread(removed, silencing=True)
        units = Units(self.groups, self.reduction)
        return units.expand(Mask.of({group.name: ~dead[group.name] for group in units.groups}, ties), parameters)

    @property
    def groups(self) -> tuple[UnitGroup, ...]:
        """The channels of each layer, with their slices of its parameters."""
        return tuple(group for group in self.wiring.groups if group.slices)

    @cached_property
    def _units(self) -> Units:
        return Units(self.wiring.groups, self.reduction)

    @property
    def output_norms(self) -> set[str]:
        """The norms that give the network's outputs."""
        # A layer that gives outputs has slices, none of which is scored.
        outputs = {g.name for g in self.wiring.groups if g.slices and not any(part.scored for part in g.slices)}
        return {self.wiring.norms.get(name, name) for name in outputs if not name.endswith(INPUTS)}

    def of_norms(self, kept: Mask) -> Mask:
        """The kept channels by layer, from those that each norm keeps."""
        owners = {norm: name for name, norm in self.wiring.norms.items()}
        groups = {group.name for group in self.wiring.groups}
        channels = {owners.get(norm, norm): kept[norm] for norm in kept}
        return Mask.of({name: layer for name, layer in channels.items() if name in groups}, kept.ties)

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        """The removed channels of each layer, by number."""
        return self._units.removed(kept)

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        """The kept channels of each layer, from the removed ones; TombolaError if these are another network's."""
        return self._units.kept(removed)
