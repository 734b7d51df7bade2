"""Wiring: which channels of a network feed which, and so what dies with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tombola.structure.units import UnitGroup

INPUTS = " inputs"
"""What the group of a layer's inputs is called after the layer's name."""

PINNED = 0
"""The channel that always lives: outputs of the network, and whatever passes through operations that are not known."""

NOBODY = -1
"""In place of a unit's number, for a channel that belongs to no unit."""


@dataclass(frozen=True, eq=False)
class Wiring:
    """All channels of a network, numbered from 1 in the order of their groups; 0 stands for what always lives.

    groups: of every layer its outputs, by the layer's name, and its inputs, as `<name> inputs`. norms: by layer, the
    norm that follows it alone, whose channels are the layer's. flows: pairs (2, n) of channels of which the first feeds
    the second. ties: pairs that lie on the same axis of some tensor, and so can only be cut out together. lost: layers
    whose channels reach an operation that torch-pruning cannot map, with its name; they are tied to what always lives.
    """

    groups: tuple[UnitGroup, ...]
    norms: Mapping[str, str]
    flows: Tensor
    ties: Tensor
    lost: Mapping[str, str] = field(default_factory=dict)

    def spread(self, dead: Mapping[str, Tensor], *, silencing: bool) -> dict[str, Tensor]:
        """Every group's dead channels: the given ones, what only dead ones feed, and what feeds only dead ones.

        silencing: whether a layer or norm that only dead channels feed counts as dead, as when a mask is made that will
        silence it; when a mask is read, what it gives may be a constant.
        """
        known = self._joined(dead)
        sources, targets = self.flows
        fed, used = (torch.zeros_like(known).index_fill_(0, own, True) for own in (targets, sources))
        if not silencing:
            fed &= self._joined({group.name: torch.full((group.size,), _follows(group)) for group in self.groups})
        while True:
            from_living, to_living = (
                torch.zeros_like(known).index_fill_(0, own[~known[other]], True)
                for own, other in ((targets, sources), (sources, targets))
            )
            now = known | (fed & ~from_living) | (used & ~to_living)
            now[PINNED] = False
            if torch.equal(now, known):
                return self._split(known)
            known = now

    def removable(self, dead: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of every group's dead channels those that can be cut out: all that lies on the same axes is dead too.

        Where that is all of a group, its first stays: no layer can have no channels.
        """
        known = self._joined(dead)
        first, second = self.ties.numpy()
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(known), len(known)))
        count, component = connected_components(graph, directed=False)
        component = torch.from_numpy(component).long()
        lives = torch.zeros(count, dtype=torch.bool).index_fill_(0, component[~known], True)
        for own in self._split(component).values():
            lives[own[0]] |= not lives[own].any()
        return self._split(~lives[component])

    def fed_by(self, name: str) -> set[str]:
        """The groups to which channels of this one flow; "" among them for what always lives."""
        owners = ["", *(group.name for group in self.groups for _ in range(group.size))]
        first = owners.index(name)
        size = owners.count(name)
        sources, targets = self.flows
        return {owners[own] for own in targets[(sources >= first) & (sources < first + size)].tolist()}

    def fed_from(self, name: str) -> dict[str, Tensor]:
        """Of every group's channels the number of the channel of this one that feeds it, or NOBODY."""
        numbers = torch.full((1 + sum(group.size for group in self.groups),), NOBODY)
        own = self._split(torch.arange(len(numbers)))[name]
        sources, targets = self.flows
        feeding = (sources >= own[0]) & (sources <= own[-1])
        numbers[targets[feeding]] = sources[feeding] - own[0]
        return self._split(numbers)

    def _joined(self, dead: Mapping[str, Tensor]) -> Tensor:
        none = torch.zeros(1, dtype=torch.bool)
        return torch.cat([none, *(dead.get(g.name, none.expand(g.size)).cpu() for g in self.groups)])

    def _split(self, channels: Tensor) -> dict[str, Tensor]:
        parts = channels[1:].split([group.size for group in self.groups])
        return {group.name: part for group, part in zip(self.groups, parts, strict=True)}


def _follows(group: UnitGroup) -> bool:
    """Whether a group has no parameters of its own that could make something out of nothing."""
    return not group.slices or group.name.endswith(INPUTS)
