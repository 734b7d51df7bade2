"""Channels and attention heads as the units of one search."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import LATER, check_fields
from tombola.structure.coupled_channels import Channels, CoupledUnits
from tombola.structure.graph import Probe
from tombola.structure.part_granularity import PartUnits, UnitsOfParts, is_protected
from tombola.structure.units import Reduction, check_removed, check_scope
from tombola.structure.widths import check_names, check_widths
from tombola.tickets import Mask, Scope

T = TypeVar("T")


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
        check_widths(self.round_to, self.protect)
        _ = self.channels

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
        check_names(self.protect, model)
        heads = PartUnits("head", self.round_to, self.protect).units(model, probe)
        return ChannelAndHeadUnits(self.channels.units(model, probe), heads)


@dataclass(frozen=True, eq=False)
class ChannelAndHeadUnits:
    """The channels and heads of one network.

    Args:
        channels: the channels.
        heads: the heads.
    """

    channels: CoupledUnits
    heads: UnitsOfParts

    def reduce(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the units of each group are worth, from the scores of weights."""
        return self.channels.families.worths(self.channels.worths(scores)) | self.heads.reduce(scores)

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept units: the same share of channels and of heads; arguments as of `tombola.select`.

        Raises:
            TombolaError: if a layer would keep no channel or no head, or all are protected.
        """
        kept: dict[str, Tensor] = {}
        ties = 0
        for units, names, free in self._kinds:
            if not free:
                continue
            chosen = units.choose(
                scores,
                density,
                scope=_of(scope, names) if isinstance(scope, Mapping) else scope,
                within=None if within is None else _mask(within, names),
                floor=floor,
            )
            kept |= dict(chosen)
            ties += chosen.ties
        if not kept:
            raise TombolaError("all that could be removed is protected; protect fewer layers")
        return Mask.of(kept, ties)

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask of weights, in which everything that dies with the removed units is dead."""
        alive: dict[str, Tensor] = {}
        for units, names, _ in self._kinds:
            for name, bits in units.expand(_mask(kept, names), parameters).items():
                alive[name] = alive[name] & bits if name in alive else bits
        return Mask.of(alive, kept.ties)

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        """The numbers of the removed units of each group, as a ticket stores them."""
        return {
            name: numbers
            for units, names, _ in self._kinds
            for name, numbers in units.removed(_mask(kept, names)).items()
        }

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        """The kept units, from the removed ones; TombolaError if these are another network's."""
        check_removed(removed, self.sizes)
        bits = {name: own for units, names, _ in self._kinds for name, own in units.kept(_of(removed, names)).items()}
        return Mask.of(bits)

    @property
    def sizes(self) -> dict[str, int]:
        """How many units each group has."""
        return {**self.channels.families.sizes} | {group.name: group.size for group in self.heads.groups}

    @property
    def free(self) -> dict[str, int]:
        """How many units each group has that is not protected."""
        held = {group.name for group in self.heads.groups if is_protected(group, self.heads.protect)}
        return {name: size for name, size in self.sizes.items() if name not in held | self.channels.protected}

    @property
    def _kinds(self) -> tuple[tuple[CoupledUnits | UnitsOfParts, set[str], bool], ...]:
        """The units of each kind, the names of their groups, and whether some of them can lose units."""
        free = self.free.keys()
        named = (
            (self.channels, set(self.channels.families.sizes)),
            (self.heads, {group.name for group in self.heads.groups}),
        )
        return tuple((units, names, bool(names & free)) for units, names in named)


def _of(given: Mapping[str, T], names: Collection[str]) -> dict[str, T]:
    return {name: own for name, own in given.items() if name in names}


def _mask(kept: Mask, names: Collection[str]) -> Mask:
    return Mask.of({name: kept[name] for name in kept if name in names}, kept.ties)
