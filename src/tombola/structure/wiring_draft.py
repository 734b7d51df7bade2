"""A wiring while it is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tombola.structure.units import UnitGroup
from tombola.structure.wiring import INPUTS, PINNED, Wiring


@dataclass
class WiringDraft:
    """A wiring under construction, with lists that grow in place of its tensors.

    Args:
        groups: see `Wiring`, as are all others without a word here; the pairs are in arrays (2, n).
        spans: by a group's name, the numbers of its channels.
        size: how many channels there are, the one included that always lives.
        traced: the groups that the trace has found.
    """

    groups: list[UnitGroup] = field(default_factory=list)
    norms: dict[str, str] = field(default_factory=dict)
    spans: dict[str, range] = field(default_factory=dict)
    flows: list[np.ndarray] = field(default_factory=list)
    uses: list[np.ndarray] = field(default_factory=list)
    ties: list[np.ndarray] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    size: int = 1
    traced: set[str] = field(default_factory=set)
    unlisted: dict[str, str] = field(default_factory=dict)
    grouped: dict[str, int] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)

    def add(self, group: UnitGroup) -> None:
        """Append a group, whose channels get the next numbers."""
        self.groups.append(group)
        self.spans[group.name] = range(self.size, self.size + group.size)
        self.size += group.size

    def put(self, group: UnitGroup) -> None:
        """Append a group, or put it in the place of the one of its name."""
        if group.name in self.spans:
            self.groups = [group if own.name == group.name else own for own in self.groups]
        else:
            self.add(group)

    def flow(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Note that channels feed others."""
        self.flows.append(_array(pairs))

    def tie(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Note that channels can only be cut together."""
        self.ties.append(_array(pairs))

    def connect_to_pinned(self, channels: Iterable[int]) -> None:
        """Note that channels feed what always lives."""
        pairs = [(channel, PINNED) for channel in channels]
        self.flow(pairs)
        self.tie(pairs)

    def hold(self, name: str, channels: Tensor, reason: str) -> None:
        """Note that channels of a group cannot be cut, and why; channels: True for each of them."""
        first = self.spans[name].start
        self.tie((PINNED, first + number) for number in channels.nonzero().flatten().tolist())
        if not name.endswith(INPUTS):
            self.lost.setdefault(name, reason)

    def held(self, names: Iterable[str]) -> bool:
        """Whether the trace has lost channels of these groups."""
        return any(name in self.lost for name in names)

    def release(self, makers: Sequence[str], takers: Sequence[str]) -> None:
        """Forget where the outputs of some layers go, and from where the inputs of others come."""
        leaving = [channel for name in makers for channel in self.spans[name]]
        coming = [channel for name in takers for channel in self.spans[name]]
        for name in ("flows", "uses"):
            pairs = [own[:, ~(np.isin(own[0], leaving) | np.isin(own[1], coming))] for own in getattr(self, name)]
            setattr(self, name, pairs)
        self.ties = [own[:, ~np.isin(own, [*leaving, *coming]).any(0)] for own in self.ties]
        for name in makers:
            self.lost.pop(name, None)

    def done(self) -> Wiring:
        """The wiring as it is now."""
        flows, uses, ties = (_tensor(pairs) for pairs in (self.flows, self.uses, self.ties))
        kept = dict(self.unlisted), dict(self.grouped), dict(self.least)
        return Wiring(tuple(self.groups), dict(self.norms), flows, ties, dict(self.lost), uses, *kept)


def _array(pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    return np.array(list(pairs), np.int64).reshape(-1, 2).T


def _tensor(pairs: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.concatenate([np.zeros((2, 0), np.int64), *pairs], 1)))
