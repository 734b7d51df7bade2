"""Granularity: what is removed together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.registry import FAMILIES, GRANULARITIES
from tombola.structure.block_granularity import Blocks, BlockUnits
from tombola.structure.channels_and_heads import ChannelAndHeadUnits, ChannelsAndHeads
from tombola.structure.coupled_channels import CoupledUnits
from tombola.structure.filter_granularity import Filters, FilterUnits
from tombola.structure.graph import Probe
from tombola.structure.part_granularity import PartUnits, is_protected
from tombola.structure.transformer_parts import TransformerParts
from tombola.structure.weight_granularity import NM
from tombola.tickets import Mask, Scope


class UnitMap(Protocol):
    """The units of one network: chooses some by the scores of weights, and turns kept units into a mask of weights."""

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept units, as a mask with one vector a group.

        Args:
            scores: the scores of weights, one tensor a parameter.
            density: the kept share of units.
            scope: how groups share the units, as of `tombola.select`.
            within: the kept units of an earlier round, to choose among.
            floor: units that each group keeps at least.
        """
        ...

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask of weights that follows from the kept units; parameters: the network's, by name."""
        ...

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        """The numbers of each group's removed units, as a ticket stores them."""
        ...

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        """The kept units, from the numbers of the removed ones: the inverse of `removed`."""
        ...


class Granularity(Protocol):
    """A kind of unit, as single weights or channels: finds the units of a network."""

    @property
    def name(self) -> str:
        """What `granularity` calls it."""
        ...

    def check(self, density: float, scope: Scope) -> None:
        """TombolaError unless this density and scope are possible."""

    def units(self, model: nn.Module, probe: Probe) -> UnitMap:
        """The units of a network.

        Args:
            model: the network.
            probe: calls a model on an example of its inputs.
        """
        ...


OF_PARTS = (PartUnits, TransformerParts, ChannelsAndHeads)
"""The kinds of which a part may be left none, unless it keeps one at least."""
COUNTED = (Blocks, Filters)
"""The kinds whose `remove` says how many units go, in place of a density."""


def kept_share(units: UnitMap, density: float) -> float:
    """The share of its units that a network keeps: the density, unless the granularity counts what it removes.

    Args:
        units: the units of the network.
        density: the density that was asked for.

    Raises:
        TombolaError: if more units are to go than can.
    """
    return units.share(density) if isinstance(units, BlockUnits | FilterUnits) else density


def granularity_of(described: Mapping[str, Any]) -> Granularity:
    """The granularity that a ticket's provenance describes.

    Args:
        described: its registry name and version under `is`, and its settings.

    Raises:
        TombolaError: if it is not one of Tombola's own, since a file that was received must not choose code.
    """
    name, _, version = str(described.get("is")).partition("@")
    entry = FAMILIES.own.get(name)
    if not version or entry is None or not entry.where.startswith("tombola.structure."):
        raise TombolaError(
            f"the ticket's units are of a granularity that is not Tombola's own ({described.get('is')}); check its "
            "method instead of the ticket"
        )
    return replace(entry, settings={key: value for key, value in described.items() if key != "is"}).load()


def check_granularity(chosen: Granularity, density: float, scope: Scope) -> None:
    """TombolaError unless the granularity is one, and the density and scope are possible with it."""
    check_is_granularity(chosen)
    chosen.check(density, scope)


def check_is_granularity(chosen: Any) -> None:
    """TombolaError unless it is a granularity, and not its name or its class."""
    if isinstance(chosen, str):
        example = "tb.Channels()" if chosen == "channel" else f"tb.structure.granularity({chosen!r})"
        raise TombolaError(f"the granularity is the text {chosen!r}; give {example}")
    if isinstance(chosen, type):
        raise TombolaError(f"the granularity is the class {chosen.__name__}; give {chosen.__name__}()")
    if not all(hasattr(chosen, part) for part in ("name", "check", "units")):
        raise TombolaError(f"the granularity is {chosen!r}; give one, as tb.Channels() or tb.structure.Weights()")


def with_widths(chosen: Granularity, round_to: int = 1, protect: str | Sequence[str] = ()) -> Granularity:
    """The granularity whose widths are multiples of a number, and which removes nothing of some layers.

    Args:
        chosen: the granularity.
        round_to: what widths are multiples of.
        protect: names of layers, or patterns.

    Raises:
        TombolaError: if its units have no widths, or it cannot protect layers.

    Examples:
        >>> with_widths(GRANULARITIES["channel"], 8, "conv1").protect
        ('conv1',)
    """
    asked = {"round_to": round_to, "protect": (protect,) if isinstance(protect, str) else tuple(protect)}
    changed = {name: own for name, own in asked.items() if own != {"round_to": 1, "protect": ()}[name]}
    known = {own.name for own in fields(chosen)} if is_dataclass(chosen) else set()
    for name in changed:
        if name not in known:
            raise TombolaError(
                f"units of kind {chosen.name} take no {name}; give another granularity, as tb.Channels() "
                "(--granularity channel)"
            )
    return replace(chosen, **changed) if changed else chosen  # ty: ignore[invalid-argument-type]


def sizes_of(units: UnitMap) -> dict[str, int]:
    """How many units each group has that can lose some."""
    if isinstance(units, CoupledUnits):
        return {name: size for name, size in units.families.sizes.items() if name not in units.protected}
    if isinstance(units, ChannelAndHeadUnits):
        return units.free
    if isinstance(units, BlockUnits):
        return {stage: len(blocks) for stage, blocks in units.stages.items()}
    groups = units.every.groups if isinstance(units, FilterUnits) else getattr(units, "groups", ())
    free = (group for group in groups if not is_protected(group, getattr(units, "protect", ())))
    return {group.name: group.size for group in free if any(own.scored for own in group.slices)}


def check_plain(chosen: Granularity, what: str) -> None:
    """TombolaError if a granularity rounds widths or protects layers, where a method chooses by a rule of its own.

    Args:
        chosen: the granularity.
        what: what the method does.
    """
    for name, plain in (("round_to", 1), ("protect", ())):
        if getattr(chosen, name, plain) != plain:
            raise TombolaError(f"{what} takes no {name}; leave it out, or give another method, as iterative pruning")


def granularity(name: str) -> Granularity:
    """The granularity of this name.

    Args:
        name: `weight`; `channel` (or `channel:mean`, `channel:l2`, `channel:streams`); `head`, `neuron`, `mlp`,
            `head+mlp`, `head+neuron`, `channel+head`, `channel:streams+head` or `query-key` of transformers;
            `block`, or `block:3` to remove three; `filter:3` for as many filters as those have; or a pattern as `2:4`.

    Raises:
        TombolaError: if there is no granularity of this name.

    Examples:
        >>> granularity("2:4")
        NM(n=2, m=4)
    """
    if counted := re.fullmatch(r"(block|filter):(\d+)", name):
        return {"block": Blocks, "filter": Filters}[counted[1]](int(counted[2]))
    if pattern := re.fullmatch(r"(\d+):(\d+)", name):
        return NM(int(pattern[1]), int(pattern[2]))
    return GRANULARITIES[name]
