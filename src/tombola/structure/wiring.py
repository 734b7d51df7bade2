"""Wiring: which channels of a network feed which, and so which die together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tombola.structure.units import UnitGroup

INPUTS = " inputs"
"""The name of the group of a layer's inputs is the layer's name and this."""

PINNED = 0
"""The channel that always lives. It stands for the network's outputs and for what unknown operations take and give."""

NOBODY = -1
"""In place of a unit's number for a channel that belongs to no unit."""


@dataclass(frozen=True, eq=False)
class Wiring:
    """All channels of a network, numbered from 1 in the order of their groups; 0 stands for what always lives.

    Args:
        groups: the outputs of each layer, by its name, and its inputs, by its name and `INPUTS`.
        norms: by a layer's name, the norm that only follows this layer, whose channels are the layer's.
        flows: pairs (2, n) of channels; the first feeds the second.
        ties: pairs (2, n) of channels that lie on the same axis of a tensor, and so can only be cut out together.
        lost: layers whose channels reach an operation through which they cannot be followed or cut, with its name; they
            are tied to what always lives.
        uses: pairs (2, n) of channels; the first is needed while the second lives, and does not keep it alive, as the
            gate of a channel.
        unlisted: as `lost`, of layers that have no group, since neither their inputs nor outputs can ever be cut.
        grouped: grouped convolutions of which channels can be cut alike in each group, or whole groups; and how many
            groups each has. The ties of neither way are among `ties`.
        least: how many channels a group keeps at least, where that is more than one.
    """

    groups: tuple[UnitGroup, ...]
    norms: Mapping[str, str]
    flows: Tensor
    ties: Tensor
    lost: Mapping[str, str] = field(default_factory=dict)
    uses: Tensor = field(default_factory=lambda: torch.zeros(2, 0, dtype=torch.long))
    unlisted: Mapping[str, str] = field(default_factory=dict)
    grouped: Mapping[str, int] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict)

    def spread(self, dead: Mapping[str, Tensor], *, silencing: bool) -> dict[str, Tensor]:
        """All dead channels of each group: these, those that only dead ones feed, and those that feed only dead ones.

        Args:
            dead: by group, which channels are dead at first; a group that is missing has none.
            silencing: whether a layer or norm that only dead channels feed is dead too. It is where a mask is made that
                will silence it. Where a mask is read it is not: the layer's bias or the norm's shift may be alive.
        """
        silent = self._joined(dead)
        sources, targets = self.flows
        givers, takers = torch.cat([self.flows, self.uses], 1)
        fed, used = (torch.zeros_like(silent).index_fill_(0, channels, True) for channels in (targets, givers))
        if not silencing:
            fed &= self._joined({group.name: torch.full((group.size,), _only_passes(group)) for group in self.groups})
        while True:
            from_living, to_living = (
                torch.zeros_like(silent).index_fill_(0, ends[~silent[others]], True)
                for ends, others in ((targets, sources), (givers, takers))
            )
            now = silent | (fed & ~from_living) | (used & ~to_living)
            now[PINNED] = False
            if torch.equal(now, silent):
                return self.by_group(silent)
            silent = now

    def removable(self, dead: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The dead channels of each group that can be cut out, because all channels tied to them are dead too.

        A group keeps its first channel where all could go, since a layer needs one; some need more. A grouped
        convolution of which whole groups are dead loses these; others lose channels that are dead in each group.

        Args:
            dead: by group, which channels are dead.
        """
        silent = self._joined(dead)
        by_name = self.by_group(silent)
        whole = {name for name, groups in self.grouped.items() if by_name[name].reshape(groups, -1).all(1).any()}
        component = self.classes(whole)
        by_group = self.by_group(component)
        count = int(component.max()) + 1
        lives = torch.zeros(count, dtype=torch.bool).index_fill_(0, component[~silent], True)
        for name, components in by_group.items():
            missing = max(0, self.least.get(name, 1) - int(lives[components].sum()))
            lives[components[~lives[components]][:missing]] = True
        return self.by_group(~lives[component])

    def tied(self, whole: Collection[str]) -> Tensor:
        """All pairs of channels that can only be cut together; whole: grouped convolutions that lose whole groups."""
        channels = self.by_group(torch.arange(1 + sum(group.size for group in self.groups)))
        pairs = [self.ties]
        for name, groups in self.grouped.items():
            outputs, inputs = (channels[own].reshape(groups, -1) for own in (name, name + INPUTS))
            for own in (outputs, inputs):
                first = outputs[:, :1] if name in whole else own[:1]
                pairs.append(torch.stack([first.expand_as(own).flatten(), own.flatten()]))
        return torch.cat(pairs, 1)

    @cached_property
    def by_groups(self) -> frozenset[str]:
        """The grouped convolutions that lose whole groups, since alike in each group all of their channels would go."""
        component = self.classes(())
        classes = self.by_group(component)
        free = {name: set(classes[name].tolist()) - {int(component[PINNED])} for name in self.grouped}
        return frozenset(name for name, own in free.items() if len(own) == 1)

    def classes(self, whole: Collection[str]) -> Tensor:
        """The number of each channel's class, in which channels can only be cut together; whole: as for `tied`."""
        first, second = self.tied(whole).numpy()
        size = 1 + sum(group.size for group in self.groups)
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(size, size))
        return torch.from_numpy(connected_components(graph, directed=False)[1]).long()

    def fed_by(self, name: str) -> set[str]:
        """The groups that channels of this group feed; "" is among them for what always lives."""
        owners = ["", *(group.name for group in self.groups for _ in range(group.size))]
        first = owners.index(name)
        size = owners.count(name)
        sources, targets = torch.cat([self.flows, self.uses], 1)
        return {owners[target] for target in targets[(sources >= first) & (sources < first + size)].tolist()}

    def fed_from(self, name: str) -> dict[str, Tensor]:
        """For each group's channels, the number of the channel of this group that feeds it, or NOBODY."""
        numbers = torch.full((1 + sum(group.size for group in self.groups),), NOBODY)
        channels = self.by_group(torch.arange(len(numbers)))[name]
        sources, targets = self.flows
        feeding = (sources >= channels[0]) & (sources <= channels[-1])
        numbers[targets[feeding]] = sources[feeding] - channels[0]
        return self.by_group(numbers)

    def _joined(self, dead: Mapping[str, Tensor]) -> Tensor:
        """One vector over all channels, from one a group."""
        none = torch.zeros(1, dtype=torch.bool)
        return torch.cat([none, *(dead.get(g.name, none.expand(g.size)).cpu() for g in self.groups)])

    def by_group(self, channels: Tensor) -> dict[str, Tensor]:
        """One vector a group, from one over all channels."""
        parts = channels[1:].split([group.size for group in self.groups])
        return {group.name: part for group, part in zip(self.groups, parts, strict=True)}


EMPTY = Wiring((), {}, torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0, dtype=torch.long))
"""The wiring of a network of which no channel is known."""


def _only_passes(group: UnitGroup) -> bool:
    """Whether a group has no parameters of its own, such as a bias, by which zeros could become something else."""
    return not group.slices or group.name.endswith(INPUTS)
