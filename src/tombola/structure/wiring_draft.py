"""A wiring while a trace is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tombola.structure.units import UnitGroup
from tombola.structure.wiring import PINNED, Wiring


@dataclass
class WiringDraft:
    """A wiring under construction, with lists that grow in place of its tensors.

    Args:
        groups: see `Wiring`, as are norms, flows, ties and lost.
        spans: by a group's name, the numbers of its channels.
        size: how many channels there are, the one included that always lives.
    """

    groups: list[UnitGroup] = field(default_factory=list)
    norms: dict[str, str] = field(default_factory=dict)
    spans: dict[str, range] = field(default_factory=dict)
    flows: list[tuple[int, int]] = field(default_factory=list)
    ties: list[tuple[int, int]] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    size: int = 1

    def add(self, group: UnitGroup) -> None:
        """Append a group, whose channels get the next numbers."""
        self.groups.append(group)
        self.spans[group.name] = range(self.size, self.size + group.size)
        self.size += group.size

    def connect(self, sources: Iterable[int], targets: Iterable[int], *, cuttable: bool = True) -> None:
        """Note that channels feed others, one by one, on the same axis.

        Args:
            sources: the numbers of the channels that feed.
            targets: the numbers of the channels that they feed.
            cuttable: whether they can be cut out; else they are tied to what always lives.
        """
        pairs = list(zip(sources, targets, strict=True))
        self.flows += pairs
        self.ties += pairs if cuttable else [(PINNED, channel) for pair in pairs for channel in pair]

    def done(self) -> Wiring:
        """The finished wiring."""
        return Wiring(tuple(self.groups), self.norms, _pairs(self.flows), _pairs(self.ties), self.lost)


def _pairs(pairs: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
