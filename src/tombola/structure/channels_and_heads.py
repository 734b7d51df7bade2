"""Channels and attention heads as the units of one search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import LATER, check_fields
from tombola.structure.coupled_channels import Channels, CoupledUnits
from tombola.structure.graph import Probe
from tombola.structure.part_granularity import PartUnits, UnitsOfParts, is_protected
from tombola.structure.units import Reduction, check_scope
from tombola.tickets import Mask, Scope

T = TypeVar("T")
HEAD = "head:"
"""What stands before the names of groups of heads. Where channels inside attention can go too, a layer names both."""


@dataclass(frozen=True)
class ChannelsAndHeads:
    """Whole channels, and whole attention heads: the same share of each.

    `Channels` leaves the inside of attention as it is, and heads leave all else. Together they cut a transformer along
    all its widths. Channels compete with channels, and heads with heads.

    Args:
        reduction, most, round_to, protect, streams: as of `Channels`. For heads, `round_to` is of their channels
            together.

    Examples:
        >>> ChannelsAndHeads(streams=True).name
        'channel:streams+head'
    """

    reduction: Reduction = "sum"
    most: float = 0.9
    round_to: int = field(default=1, repr=False, metadata=LATER)
    protect: tuple[str, ...] = field(default=(), repr=False, metadata=LATER)
    streams: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.channels  # which checks its settings

    @property
    def channels(self) -> Channels:
        """The channels alone."""
        return Channels(self.reduction, self.most, self.round_to, self.protect, self.streams)

    @property
    def name(self) -> str:
        """What `granularity` calls it."""
        return f"{self.channels.name}+head"

    def check(self, density: float, scope: Scope) -> None:
        """TombolaError for a scope that shares weights."""
        check_scope(self.name, scope)

    def units(self, model: nn.Module, probe: Probe) -> ChannelAndHeadUnits:
        """The channels and heads of a network; TombolaError if it has no heads, or its channels cannot be found."""
        heads = PartUnits("head", self.round_to, self.protect)
        return ChannelAndHeadUnits(self.channels.units(model, probe), heads.units(model, probe))


@dataclass(frozen=True, eq=False)
class ChannelAndHeadUnits:
    """The channels and heads of one network.

    Args:
        channels: the channels.
        heads: the heads; here their groups are called "head:" and the name of the layer that mixes them.
    """

    channels: CoupledUnits
    heads: UnitsOfParts

    def reduce(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the units of each group are worth, from the scores of weights."""
        channels = self.channels.families.worths(self.channels.worths(scores))
        return channels | _named(HEAD, self.heads.reduce(scores))

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept units: the same share of channels and of heads; arguments as of `tombola.select`.

        Raises:
            TombolaError: if a layer would keep no channel or no head, or all are protected.
        """
        kept: dict[str, Tensor] = {}
        ties = 0
        for kind, units in self._kinds:
            if not _of(kind, self.free):
                continue
            chosen = units.choose(
                scores,
                density,
                scope=_of(kind, scope) if isinstance(scope, Mapping) else scope,
                within=None if within is None else Mask.of(_of(kind, within)),
                floor=floor,
            )
            kept |= _named(kind, chosen)
            ties += chosen.ties
        if not kept:
            raise TombolaError("all that could be removed is protected; protect fewer layers")
        return Mask.of(kept, ties)

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask of weights, in which everything that dies with the removed units is dead."""
        alive: dict[str, Tensor] = {}
        for kind, units in self._kinds:
            for name, bits in units.expand(Mask.of(_of(kind, kept)), parameters).items():
                alive[name] = alive[name] & bits if name in alive else bits
        return Mask.of(alive, kept.ties)

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        """The numbers of the removed units of each group, as a ticket stores them."""
        numbers = (_named(kind, units.removed(Mask.of(_of(kind, kept)))) for kind, units in self._kinds)
        return {name: own for of_kind in numbers for name, own in of_kind.items()}

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        """The kept units, from the removed ones; TombolaError if these are another network's."""
        bits = (_named(kind, units.kept(_of(kind, removed))) for kind, units in self._kinds)
        return Mask.of({name: own for of_kind in bits for name, own in of_kind.items()})

    @property
    def free(self) -> dict[str, int]:
        """How many units each group has that is not protected."""
        channels = self.channels.families.sizes.items()
        heads = {group.name: group.size for group in self.heads.groups if not is_protected(group, self.heads.protect)}
        return {name: size for name, size in channels if name not in self.channels.protected} | _named(HEAD, heads)

    @property
    def _kinds(self) -> tuple[tuple[str, CoupledUnits | UnitsOfParts], ...]:
        return ("", self.channels), (HEAD, self.heads)


def _of(kind: str, given: Mapping[str, T]) -> dict[str, T]:
    """What is of the groups of one kind, by their own names."""
    return {name.removeprefix(kind): own for name, own in given.items() if name.startswith(HEAD) == (kind == HEAD)}


def _named(kind: str, own: Mapping[str, T]) -> dict[str, T]:
    return {kind + name: value for name, value in own.items()}
