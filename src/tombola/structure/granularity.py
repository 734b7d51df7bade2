"""Granularity: what is removed together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, get_args

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.structure.channels import Channels
from tombola.structure.graph import Probe
from tombola.structure.units import Reduction
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


def granularity(name: str) -> Granularity:
    """The granularity of this name: `weight`, `channel` (or `channel:mean`, `channel:l2`), or a pattern as `2:4`.

    Examples:
        >>> granularity("2:4")
        NM(n=2, m=4)
    """
    plain = {own.name: own for own in (Weights(), *(Channels(reduction) for reduction in get_args(Reduction)))}
    if name in plain:
        return plain[name]
    pattern = re.fullmatch(r"(\d+):(\d+)", name)
    if pattern is None:
        raise TombolaError(f"there is no granularity '{name}'; give {', '.join(plain)}, or a pattern as 2:4")
    return NM(int(pattern[1]), int(pattern[2]))
