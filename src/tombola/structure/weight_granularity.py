"""Single weights as units: all of them, those of queries and keys alone, or n of every m side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.structure.declared_parts import query_key_weights
from tombola.structure.graph import Probe
from tombola.tickets import Mask, Scope, select, select_pattern


class SingleWeights:
    """Every weight is a unit of its own, so that the mask of units is the mask of weights."""

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept weights; arguments as of `tombola.select`."""
        return select(scores, density, scope=scope, within=within, floor=floor)

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask itself."""
        return kept

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        """Nothing: a ticket stores single weights as its mask."""
        return {}

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Mask:
        """TombolaError, always: single weights are not listed by number."""
        raise TombolaError("single weights are not listed by number; use the mask itself")


@dataclass(frozen=True)
class Weights:
    """Unstructured: weights are kept or removed one by one."""

    name: ClassVar[str] = "weight"

    def check(self, density: float, scope: Scope) -> None:
        return

    def units(self, model: nn.Module, probe: Probe) -> SingleWeights:
        return SingleWeights()


class NamedWeights(SingleWeights):
    """Single weights of some parameters only; all others stay.

    Args:
        names: the parameters' names.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.names = names

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept weights of these parameters; arguments as of `tombola.select`."""
        named = {name: score for name, score in scores.items() if name in self.names}
        return select(named, density, scope=scope, within=within, floor=floor)


@dataclass(frozen=True)
class QueryKey:
    """Single weights of attention's query and key projections; the density is the kept share of these."""

    name: ClassVar[str] = "query-key"

    def check(self, density: float, scope: Scope) -> None:
        return

    def units(self, model: nn.Module, probe: Probe) -> NamedWeights:
        return NamedWeights(query_key_weights(model))


class PatternedWeights(SingleWeights):
    """Weights that compete within groups of m.

    Args:
        m: the size of a group.
    """

    def __init__(self, m: int) -> None:
        self.m = m

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept weights; `scope` and `floor` do not matter, since each group keeps the same share."""
        assert density is not None
        return select_pattern(scores, self.m, density, within)


WIDEST = 1024
"""Weights of a pattern's group."""


@dataclass(frozen=True)
class NM:
    """n of every m weights that lie side by side along a layer's inputs, as sparse tensor cores need them (2:4).

    The density must be n / m. Where m does not divide a layer's number of inputs, those left over share the rest.

    Args:
        n: weights kept of each group.
        m: the size of a group.

    Examples:
        >>> NM(2, 4).name
        '2:4'
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.n <= self.m <= WIDEST:
            raise TombolaError(
                f"the pattern {self.name} keeps {self.n} of every {self.m}; give n from 1 to m, and m up to {WIDEST}, "
                "as 2:4"
            )

    @property
    def name(self) -> str:
        """What `granularity` calls it."""
        return f"{self.n}:{self.m}"

    def check(self, density: float, scope: Scope) -> None:
        """TombolaError for another density than n / m, or a scope with other shares for each layer."""
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

    def units(self, model: nn.Module, probe: Probe) -> PatternedWeights:
        return PatternedWeights(self.m)
