"""Channels as units, chosen together where they can only go together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import LATER
from tombola.structure.channel_families import Families, families_of
from tombola.structure.channel_granularity import ChannelUnits, SeparateChannels
from tombola.structure.graph import Probe
from tombola.structure.units import Units, check_kept, never_empty
from tombola.structure.widths import (
    check_names,
    check_widths,
    is_named,
    least_multiple,
    of_whole_widths,
    step_of,
    without,
)
from tombola.structure.wiring import INPUTS, NOBODY
from tombola.tickets import Mask, Scope, select


class FloorWarning(UserWarning):
    """Layers fell to the least that they may keep, so that the scores did not decide how many channels they keep."""


@dataclass(frozen=True)
class Channels(SeparateChannels):
    """Whole channels: a filter or neuron goes with its bias and its norm's scale and shift, so that it emits exactly 0.

    Channels that can only be cut together, as those of a residual stream, of a group or of a gate, are one unit. What
    only removed channels feed goes too, as does what feeds only removed channels. Layers that give the network's
    outputs keep all channels, and so do those whose channels cannot be cut out.

    Args:
        reduction: whether a channel's score is the sum, the mean or the L2 norm of its weights' scores. What channels
            are worth is divided by the mean of their layer, so that no layer loses all for having few weights. A unit
            is worth the mean over the layers that it touches, and there of its channels.
        most: the largest share of its units that a layer may lose, from 0 to 1; at densities below 1 - most, what the
            density leaves.
        round_to: what the widths of layers are multiples of, as 8, where a layer has as many channels; the network then
            keeps at most the density.
        protect: names of layers, or patterns, whose channels all stay. The density is that of the other channels.
        streams: whether streams under layer and RMS norms, as those of transformers and ConvNeXt, lose channels too.
            Their norms become `PartialNorm`, and an embedding that is the last layer too stays so. It saves most, and
            at equal FLOPs it costs more accuracy.

    Examples:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> units = Channels().units(model, lambda network: network(torch.ones(1, 2)))
        >>> mask = units.expand(units.kept({"0": (1,)}), dict(model.named_parameters()))
        >>> mask["0.weight"].tolist()
        [[True, True], [False, False], [True, True]]
        >>> mask["2.weight"].tolist()
        [[True, False, True]]
    """

    most: float = 0.9
    round_to: int = field(default=1, repr=False, metadata=LATER)
    protect: tuple[str, ...] = field(default=(), repr=False, metadata=LATER)
    streams: bool = field(default=False, repr=False, metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths(self.round_to, self.protect)
        if not 0 <= self.most <= 1:
            raise TombolaError(f"most is {self.most:g}; give the share of its channels that a layer may lose, 0 to 1")

    @property
    def name(self) -> str:
        """What `granularity` calls it."""
        settings = ("streams",) * self.streams + (self.reduction,) * (self.reduction != "sum")
        return ":".join(("channel", *settings))

    def units(self, model: nn.Module, probe: Probe) -> CoupledUnits:
        """The channels of a network; TombolaError if it can neither be traced nor declares channels."""
        check_names(self.protect, model)
        found = self._found(model, probe, self.streams)
        return CoupledUnits(found.wiring, self.reduction, found.whole, self.most, self.round_to, self.protect)


@dataclass(frozen=True, eq=False)
class CoupledUnits(ChannelUnits):
    """The channels of one network, those that can only go together as one unit.

    Args:
        most, round_to, protect: see `Channels`.
    """

    most: float = 0.9
    round_to: int = 1
    protect: tuple[str, ...] = ()

    @cached_property
    def families(self) -> Families:
        """Which channels go together."""
        return families_of(self.wiring)

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept units of each family, by the scores of weights; arguments as of `tombola.select`.

        Raises:
            TombolaError: if no channel can be cut out, or a family would keep none.
        """
        return self.best(self.worths(scores), density, scope=scope, within=within, floor=floor)

    def best(
        self, layers: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept units of each family, by what the channels of layers are worth; as `choose`."""
        if not self.families.sizes:
            raise self.none_goes()
        worths = self.families.worths({name: _normed(own) for name, own in layers.items()})
        worths = without(worths, self.protected)
        floors = {name: max(floor, self._least(len(own), density)) for name, own in worths.items()}
        kept = never_empty(select(worths, density, scope=scope, within=within, floor=floors))
        steps = {name: self._step(name) for name in worths}
        kept = of_whole_widths(kept, worths, steps, within, floors)
        if scope == "global":
            least = {name: least_multiple(floors[name], steps[name], len(own)) for name, own in worths.items()}
            _warn_of_floors(kept, least, within)
        return kept

    @cached_property
    def protected(self) -> set[str]:
        """The families that keep all units, because a layer is protected that makes their channels."""
        return {
            family
            for family, members in self.families.members.items()
            if any(
                is_named(name, self.protect)
                for layer in members
                if not layer.endswith(INPUTS)
                for name in (layer, self.wiring.norms.get(layer, layer))
            )
        }

    def _step(self, family: str) -> int:
        """Of how many units a multiple stays, so that the widths of all layers that they touch are multiples."""
        widths = (
            int(torch.bincount(units[units != NOBODY]).max())
            for layer, units in self.families.members[family].items()
            if not layer.endswith(INPUTS)
        )
        return math.lcm(*(step_of(self.round_to, width) for width in widths))

    def _least(self, size: int, density: float | None) -> int:
        """The units that a family of this size keeps, whatever their scores."""
        share = 0.0 if density is None else min(1 - self.most, density)
        return max(math.floor(share * size + 1e-9), int(self.most < 1))

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask of weights, in which everything that dies with the removed units is dead."""
        check_kept(kept, self.families.sizes)
        return self.masked(self.families.removed(kept), parameters, kept.ties)

    def of_norms(self, kept: Mask) -> Mask:
        """The kept units of each family, from the channels that each norm keeps."""
        layers = super().of_norms(kept)
        alive = {}
        for family, members in self.families.members.items():
            dead = torch.zeros(self.families.sizes[family] + 1, dtype=torch.bool)  # NOBODY is -1: the end
            for layer in members.keys() & set(layers):
                dead[members[layer][~layers[layer]]] = True
            alive[family] = ~dead[:-1]
        return Mask.of(alive, kept.ties)

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        """The removed units of each family, by number."""
        return self.families.units.removed(kept)

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        """The kept units of each family, from the removed ones; TombolaError if these are another network's."""
        return self.families.units.kept(removed)


@dataclass(frozen=True)
class CoupledNorms(Units):
    """The channels of norms as units, chosen together where they can only go together.

    Args:
        channels: the channels of the network.
    """

    channels: CoupledUnits = field(kw_only=True)

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept channels of each norm; arguments as of `tombola.select`, the density that of the network's units."""
        layers = {norm: layer for layer, norm in self.channels.wiring.norms.items()}
        worths = {layers.get(norm, norm): own for norm, own in self.reduce(scores).items()}
        kept = self.channels.best(worths, density, scope=scope, within=within, floor=floor)
        removed = self.channels.families.removed(kept)
        whole = {group.name: torch.zeros(group.size, dtype=torch.bool) for group in self.groups}
        return Mask.of({norm: ~removed.get(layers.get(norm, norm), none) for norm, none in whole.items()}, kept.ties)


def _warn_of_floors(kept: Mask, floors: Mapping[str, int], before: Mask | None) -> None:
    """Warn of families that keep no more than they must, if that is at most half of their share of what is kept."""
    had = {name: bits.size if before is None else before.kept(name) for name, bits in kept.bits.items()}
    fallen = [
        name
        for name, least in floors.items()
        if kept.kept(name) <= least < had[name] and 2 * least <= kept.density * kept.bits[name].size
    ]
    if fallen:
        name, others = fallen[0], len(fallen) - 1
        more = f" and {others} other layer{'s' * (others > 1)}" if others else ""
        warnings.warn(
            f"'{name}'{more} fell to the least that a layer keeps ({kept.kept(name)} of {kept.bits[name].size} "
            "channels of it), since its scores are the lowest; a lower most, or scope='layerwise', leaves it more",
            FloorWarning,
            stacklevel=4,
        )


def _normed(worths: Tensor) -> Tensor:
    """What a layer's channels are worth, in units of the layer's mean, in double precision on the CPU."""
    worths = worths.detach().to("cpu", torch.float64)
    mean = worths.abs().mean()
    return worths / mean if mean > 0 else worths
