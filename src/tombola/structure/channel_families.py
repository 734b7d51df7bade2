"""Families: layers whose channels can only go together, and which channels those are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tombola.structure.units import UnitGroup, Units
from tombola.structure.wiring import NOBODY, PINNED, Wiring
from tombola.tickets import Mask


@dataclass(frozen=True, eq=False)
class Families:
    """Units of several layers: channels that can only be cut together are one unit, as those of a residual stream.

    Layers are of one family if the same units touch them. What can never be cut belongs to no family: channels that are
    tied to what always lives, and those of a layer whose channels can only go all together.

    Args:
        members: by the name of a family, which is that of its first layer, and by the name of a group of channels: the
            number of the unit to which each of its channels belongs, or NOBODY.
        sizes: how many units each family has.
    """

    members: Mapping[str, Mapping[str, Tensor]]
    sizes: Mapping[str, int]

    def worths(self, layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What each family's units are worth: the mean over the layers that a unit touches, of the mean channel there.

        A group of a grouped convolution is not worth more than a channel for having several, since it costs more too.

        Args:
            layers: what each channel is worth, one vector a layer; layers that are missing do not count.
        """
        worths = {}
        for family, members in self.members.items():
            of_layers = [
                torch.bincount(units[free], own[free], size) / torch.bincount(units[free], minlength=size).clamp(min=1)
                for layer, units in members.items()
                if (own := layers.get(layer)) is not None
                for free, size in [(units != NOBODY, self.sizes[family])]
            ]
            if of_layers:
                worths[family] = torch.stack(of_layers).mean(0)
        return worths

    def removed(self, kept: Mask) -> dict[str, Tensor]:
        """The channels of each group that units take along which are not kept."""
        groups: dict[str, Tensor] = {}
        for family in kept:
            dead = torch.cat([~kept[family], torch.zeros(1, dtype=torch.bool)])  # NOBODY is -1: the end
            for group, units in self.members[family].items():
                groups[group] = groups[group] | dead[units] if group in groups else dead[units]
        return groups

    @property
    def units(self) -> Units:
        """The families as groups of units that own no parameters."""
        return Units(tuple(UnitGroup(name, size, ()) for name, size in self.sizes.items()))


def families_of(wiring: Wiring) -> Families:
    """The families of a network's channels.

    Args:
        wiring: which channels feed which, and which are tied.
    """
    sizes = np.array([1, *(group.size for group in wiring.groups)])
    group_of = np.repeat(np.arange(len(sizes)), sizes)
    # What only feeds a channel, as a shortcut that moves channels, must die with it too.
    first, second = torch.cat([wiring.tied(wiring.by_groups), wiring.flows], 1).numpy()
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(group_of), len(group_of)))
    _, unit_of = connected_components(graph, directed=False)
    scored = np.array([False, *(any(part.scored for part in group.slices) for group in wiring.groups)])
    can_go = unit_of != unit_of[PINNED]

    members: dict[str, dict[str, Tensor]] = {}
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for first, units in _alike(unit_of, group_of, can_go & scored[group_of]):
        if len(units) == 1:
            continue  # a layer keeps at least one unit
        numbers = np.full(unit_of.max() + 1, NOBODY)
        numbers[units] = np.arange(len(units))
        own = numbers[unit_of]
        members[_free_name(wiring.groups[first - 1].name, members)] = {
            wiring.groups[at - 1].name: torch.from_numpy(own[starts[at] : starts[at + 1]])
            for at in np.unique(group_of[own != NOBODY]).tolist()
        }
    return Families(members, {name: 1 + max(int(u.max()) for u in own.values()) for name, own in members.items()})


def _alike(unit_of: np.ndarray, group_of: np.ndarray, chosen: np.ndarray) -> list[tuple[int, list[int]]]:
    """Units that the same groups touch, and the first of these groups; all in the order of their first channels.

    Args:
        unit_of: the unit of each channel.
        group_of: the group of each channel.
        chosen: True for the channels that count.
    """
    units, groups = unit_of[chosen].astype(np.int64), group_of[chosen]
    every, first = np.unique(units, return_index=True)
    count = int(group_of.max()) + 1
    pairs = np.unique(units * count + groups)
    starts, touching = [*np.searchsorted(pairs, every * count).tolist(), len(pairs)], pairs % count
    found: dict[bytes, tuple[int, list[int]]] = {}
    for at in np.argsort(first).tolist():
        own = touching[starts[at] : starts[at + 1]]
        found.setdefault(own.tobytes(), (int(own[0]), []))[1].append(int(every[at]))
    return list(found.values())


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    """The name of a family: its first layer's, or that with a number where a layer is the first of several."""
    names = (name, *(f"{name} ({number})" for number in range(2, 2 + len(taken))))
    return next(own for own in names if own not in taken)
