"""Granularity: what is removed together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, get_args

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.structure.blocks import Blocks, BlockUnits
from tombola.structure.channels import Channels
from tombola.structure.filters import Filters, FilterUnits
from tombola.structure.graph import Probe
from tombola.structure.inside import Inside
from tombola.structure.single import NM, QueryKey, Weights
from tombola.structure.units import Reduction
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


KINDS: tuple[type[Granularity], ...] = (Weights, NM, Channels, Inside, QueryKey, Blocks, Filters)


def granularity_of(described: Mapping[str, Any]) -> Granularity:
    """The granularity that settings in a ticket's provenance name by its type and fields."""
    kinds = {kind.__name__: kind for kind in KINDS}
    if described.get("type") not in kinds:
        raise TombolaError(f"there is no granularity of type {described.get('type')!r}; use the ticket's own version")
    return kinds[described["type"]](**{key: value for key, value in described.items() if key != "type"})


def granularity(name: str) -> Granularity:
    """The granularity of this name.

    `weight`; `channel` (or `channel:mean`, `channel:l2`); `head`, `neuron` or `query-key` of transformers; `block`, or
    `block:3` to remove three; `filter:3` for as many filters as those have; or a pattern as `2:4`.

    Examples:
        >>> granularity("2:4")
        NM(n=2, m=4)
    """
    known = (
        Weights(),
        *(Channels(reduction) for reduction in get_args(Reduction)),
        Inside("head"),
        Inside("neuron"),
        QueryKey(),
        Blocks(),
    )
    plain = {own.name: own for own in known}
    if name in plain:
        return plain[name]
    if counted := re.fullmatch(r"(block|filter):(\d+)", name):
        return {"block": Blocks, "filter": Filters}[counted[1]](int(counted[2]))
    pattern = re.fullmatch(r"(\d+):(\d+)", name)
    if pattern is None:
        raise TombolaError(f"there is no granularity '{name}'; give {', '.join(plain)}, or a pattern as 2:4")
    return NM(int(pattern[1]), int(pattern[2]))
