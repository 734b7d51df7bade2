"""Granularity: what is removed together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.registry import FAMILIES, GRANULARITIES
from tombola.structure.block_granularity import Blocks, BlockUnits
from tombola.structure.filter_granularity import Filters, FilterUnits
from tombola.structure.graph import Probe
from tombola.structure.weight_granularity import NM
from tombola.tickets import Mask, Scope


class UnitMap(Protocol):
    """How units are chosen by the scores of weights, and how kept units become a mask of weights."""

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask: ...

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask: ...

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]: ...

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask: ...


class Granularity(Protocol):
    """A kind of unit; finds the units of a network."""

    @property
    def name(self) -> str: ...

    def check(self, density: float, scope: Scope) -> None:
        """TombolaError unless this density and scope can be had."""

    def units(self, model: nn.Module, probe: Probe) -> UnitMap:
        """The units of a network; probe: calls it on an example of its inputs."""
        ...


COUNTED = (Blocks, Filters)
"""The kinds of which a number goes (`remove`), and not a share."""


def kept_share(units: UnitMap, density: float) -> float:
    """The share of its units that a network keeps: the density, unless what goes is counted.

    TombolaError if more are to go than can.
    """
    return units.share(density) if isinstance(units, BlockUnits | FilterUnits) else density


def granularity_of(described: Mapping[str, Any]) -> Granularity:
    """The granularity that a ticket's provenance names; one of Tombola's own, since a file chooses no code."""
    name, _, version = str(described.get("is")).partition("@")
    entry = FAMILIES.own.get(name)
    if not version or entry is None or not entry.where.startswith("tombola.structure."):
        raise TombolaError(
            f"the ticket's units are of a granularity that is not Tombola's own ({described.get('is')}); check its "
            "method instead of the ticket"
        )
    return replace(entry, settings={key: value for key, value in described.items() if key != "is"}).load()


def granularity(name: str) -> Granularity:
    """The granularity of this name.

    `weight`; `channel` (or `channel:mean`, `channel:l2`); `head`, `neuron` or `query-key` of transformers; `block`, or
    `block:3` to remove three; `filter:3` for as many filters as those have; or a pattern as `2:4`.

    Examples:
        >>> granularity("2:4")
        NM(n=2, m=4)
    """
    if counted := re.fullmatch(r"(block|filter):(\d+)", name):
        return {"block": Blocks, "filter": Filters}[counted[1]](int(counted[2]))
    if pattern := re.fullmatch(r"(\d+):(\d+)", name):
        return NM(int(pattern[1]), int(pattern[2]))
    return GRANULARITIES[name]
