"""Granularity: what is removed together."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, get_args

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.structure.channels import Channels
from tombola.structure.graph import Probe
from tombola.structure.inner import Kind, inner_of, missing, query_key_weights, unit_group
from tombola.structure.units import Reduction, Units, check_scope, never_empty
from tombola.tickets import Mask, Scope, select, select_pattern


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


class Single:
    """Every weight is its own unit: masks are already what they should be."""

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        return select(scores, density, scope=scope, within=within, floor=floor)

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        return kept

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        return {}

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        raise TombolaError("single weights are not listed by number; use the mask itself")


@dataclass(frozen=True)
class Weights:
    """Unstructured: weights are kept or removed one by one."""

    name: ClassVar[str] = "weight"

    def check(self, density: float, scope: Scope) -> None:
        return

    def units(self, model: nn.Module, probe: Probe) -> UnitMap:
        return Single()


class Named(Single):
    """Single weights of some parameters alone; all others stay."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = names

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        own = {name: score for name, score in scores.items() if name in self.names}
        return select(own, density, scope=scope, within=within, floor=floor)


@dataclass(frozen=True)
class QueryKey:
    """The single weights of attention's query and key projections; the density is kept of these."""

    name: ClassVar[str] = "query-key"

    def check(self, density: float, scope: Scope) -> None:
        return

    def units(self, model: nn.Module, probe: Probe) -> UnitMap:
        return Named(query_key_weights(model))


class Patterned(Single):
    """Weights that compete within groups of m."""

    def __init__(self, m: int) -> None:
        self.m = m

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        assert density is not None
        return select_pattern(scores, self.m, density, within)


@dataclass(frozen=True)
class NM:
    """n of every m weights side by side along a layer's inputs, as sparse tensor cores want them (2:4).

    The density is n / m, in every layer; the inputs left over where m does not divide their number share the rest.
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.n <= self.m:
            raise TombolaError(f"the pattern {self.name} keeps {self.n} of every {self.m}; give n from 1 to m, as 2:4")

    @property
    def name(self) -> str:
        return f"{self.n}:{self.m}"

    def check(self, density: float, scope: Scope) -> None:
        if abs(density - self.n / self.m) > 1e-6:
            reachable = ", ".join(f"{k / self.m:g} ({k}:{self.m})" for k in range(1, self.m + 1))
            raise TombolaError(
                f"density is {density:g}, but {self.name} keeps {self.n / self.m:g} of the weights; "
                f"with groups of {self.m} these can be had: {reachable}"
            )
        if scope not in ("global", "layerwise"):
            raise TombolaError(
                f"{self.name} keeps the same share of every layer, which the scope {scope!r} contradicts; leave it out"
            )

    def units(self, model: nn.Module, probe: Probe) -> UnitMap:
        return Patterned(self.m)


@dataclass(frozen=True)
class Inside:
    """Units inside the parts of a network that are known by their names or declared (`Inner`), by kind.

    head: an attention head, with its rows of query, key and value and its columns of what mixes the heads. neuron: a
    hidden neuron of a feed-forward part, with its column of the layer behind. channel: of declared parts alone.
    """

    kind: Kind = "head"

    @property
    def name(self) -> str:
        return self.kind

    def check(self, density: float, scope: Scope) -> None:
        check_scope(self.name, scope)

    def units(self, model: nn.Module, probe: Probe) -> InsideUnits:
        groups = tuple(unit_group(own, model) for own in inner_of(model) if own.kind == self.kind)
        if not groups:
            raise missing(self.kind, f"{self.kind}s")
        return InsideUnits(groups)


class InsideUnits(Units):
    """Units that compete with those of the same kind in other parts; no part may lose all of its."""

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        return never_empty(super().choose(scores, density, scope=scope, within=within, floor=floor))


KINDS: tuple[type[Granularity], ...] = (Weights, NM, Channels, Inside, QueryKey)


def granularity_of(described: Mapping[str, Any]) -> Granularity:
    """The granularity that settings in a ticket's provenance name by its type and fields."""
    kinds = {kind.__name__: kind for kind in KINDS}
    if described.get("type") not in kinds:
        raise TombolaError(f"there is no granularity of type {described.get('type')!r}; use the ticket's own version")
    return kinds[described["type"]](**{key: value for key, value in described.items() if key != "type"})


def granularity(name: str) -> Granularity:
    """The granularity of this name.

    `weight`; `channel` (or `channel:mean`, `channel:l2`); `head`, `neuron` or `query-key` of transformers; or a pattern
    as `2:4`.

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
    )
    plain = {own.name: own for own in known}
    if name in plain:
        return plain[name]
    pattern = re.fullmatch(r"(\d+):(\d+)", name)
    if pattern is None:
        raise TombolaError(f"there is no granularity '{name}'; give {', '.join(plain)}, or a pattern as 2:4")
    return NM(int(pattern[1]), int(pattern[2]))
