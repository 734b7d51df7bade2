"""Granularity: what is removed together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn

from tombola.tickets import Mask


class UnitMap(Protocol):
    """How scores of weights become scores of units, and kept units a mask of weights."""

    def reduce(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]: ...

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask: ...

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]: ...


class Granularity(Protocol):
    """A kind of unit; finds the units of a network."""

    name: ClassVar[str]

    def units(self, model: nn.Module) -> UnitMap: ...


class Single:
    """Every weight is its own unit: scores and masks are already what they should be."""

    def reduce(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(scores)

    def expand(self, kept: Mask, parameters: Mapping[str, Tensor]) -> Mask:
        return kept

    def removed(self, kept: Mask) -> dict[str, tuple[int, ...]]:
        return {}


@dataclass(frozen=True)
class Weights:
    """Unstructured: weights are kept or removed one by one."""

    name: ClassVar[str] = "weight"

    def units(self, model: nn.Module) -> UnitMap:
        return Single()
