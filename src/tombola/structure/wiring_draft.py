"""A wiring while it is being found out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tombola.structure.units import UnitGroup
from tombola.structure.wiring import PINNED, Wiring


@dataclass
class WiringDraft:
    """A wiring under construction."""

    groups: list[UnitGroup] = field(default_factory=list)
    norms: dict[str, str] = field(default_factory=dict)
    spans: dict[str, range] = field(default_factory=dict)
    flows: list[tuple[int, int]] = field(default_factory=list)
    ties: list[tuple[int, int]] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    size: int = 1

    def add(self, group: UnitGroup) -> None:
        self.groups.append(group)
        self.spans[group.name] = range(self.size, self.size + group.size)
        self.size += group.size

    def connect(self, sources: Iterable[int], targets: Iterable[int], *, cuttable: bool = True) -> None:
        """The first feed the second, along the same axis; one that cannot be cut is tied to what always lives."""
        pairs = list(zip(sources, targets, strict=True))
        self.flows += pairs
        self.ties += pairs if cuttable else [(PINNED, own) for pair in pairs for own in pair]

    def done(self) -> Wiring:
        return Wiring(tuple(self.groups), self.norms, _pairs(self.flows), _pairs(self.ties), self.lost)


def _pairs(pairs: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
