"""Marks: from which channels of the network each element of a tensor comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

ABSENT = -1
"""In place of a channel's number where an element comes from no channel of a term, but maybe from one of another."""

Places = np.ndarray
"""Channels' numbers, of a shape that broadcasts to a tensor's: of size 1 on each axis along which they are the same."""


@dataclass(frozen=True, eq=False)
class Marks:
    """Where a tensor's elements come from.

    Args:
        feeds: an element is a sum of terms, and each of these has the channels that it comes from. If all of them are
            dead, so is the element. 0 stands for what always lives.
        uses: channels by which the elements are multiplied. They are needed while these live, and do not keep them
            alive.
        takes: of a weight, the channels that its elements are multiplied with.
        lit: whether an element of dead channels can be other than zero, as behind a sigmoid.
        origin: the layer or norm whose result the tensor is, unchanged but for its shape; of a parameter, and of what
            is computed from a weight, its layer.
        scales: whether this is a parameter with one element a channel, which belongs to no layer.
    """

    feeds: tuple[Places, ...]
    uses: tuple[Places, ...] = ()
    takes: Places | None = None
    lit: bool = False
    origin: str = ""
    scales: bool = False

    @property
    def places(self) -> tuple[Places, ...]:
        """All of them."""
        return self.feeds + self.uses + (() if self.takes is None else (self.takes,))

    @property
    def axes(self) -> set[int]:
        """The axes along which the channels differ."""
        return {axis for places in self.feeds + self.uses for axis in varied(places)}

    @property
    def first(self) -> Places:
        """A channel for each element: that of the first term that has one."""
        found = self.feeds[0]
        for places in self.feeds[1:]:
            found = np.where(found == ABSENT, places, found)
        return found

    @property
    def living(self) -> bool:
        """Whether some element may be fed by what always lives."""
        return self.lit or any(not places.all() for places in self.feeds)

    def moved(self, move: Callable[[Places], Places]) -> Marks:
        """The marks of a tensor whose elements are these in another arrangement."""
        return replace(
            self,
            feeds=tuple(map(move, self.feeds)),
            uses=tuple(map(move, self.uses)),
            takes=None if self.takes is None else move(self.takes),
        )

    def plain(self) -> Marks:
        """These marks for a tensor that is computed from this one, element by element; a weight stays its layer's."""
        if self.takes is not None:
            return replace(self, scales=False)
        return replace(self, origin="", scales=False) if self.origin or self.scales else self


def varied(places: Places) -> set[int]:
    """The axes along which they differ."""
    return {axis for axis, size in enumerate(places.shape) if size > 1}


def along(vector: Places, axis: int, ndim: int) -> Places:
    """One number for each position along an axis of a tensor of so many axes."""
    shape = [1] * ndim
    shape[axis] = len(vector)
    return vector.reshape(shape)


def deepened(places: Places, ndim: int) -> Places:
    """With axes of size 1 in front, as broadcasting adds them."""
    return places.reshape((1,) * (ndim - places.ndim) + places.shape)


def compressed(places: Places) -> Places:
    """Of size 1 along each axis along which all are the same."""
    for axis, size in enumerate(places.shape):
        if size > 1:
            first = places[(slice(None),) * axis + (slice(0, 1),)]
            if places.strides[axis] == 0 or (places == first).all():
                places = first
    return places


def distinct(terms: Sequence[Places]) -> tuple[Places, ...]:
    """The terms, each once."""
    found: dict[tuple[tuple[int, ...], bytes], Places] = {}
    for places in terms:
        found.setdefault((places.shape, places.tobytes()), places)
    return tuple(found.values())


def reshaped(places: Places, shape: Sequence[int], into: Sequence[int]) -> tuple[Places, bool]:
    """The places of a tensor that is given another shape, and whether an axis of different channels was split.

    Args:
        places: the channels.
        shape: the tensor's shape before.
        into: its shape afterwards.
    """
    if 0 in shape:
        return np.zeros((1,) * len(into), places.dtype), bool(varied(places))
    if places.size == 1:
        return places.reshape((1,) * len(into)), False
    full, target, split = list(places.shape), [1] * len(into), False
    runs = _runs(shape, into)
    for old, new in runs:
        before = [axis for axis in old if places.shape[axis] > 1]
        if before:
            for axis in old:
                full[axis] = shape[axis]
            for axis in new:
                target[axis] = into[axis]
    result = compressed(np.broadcast_to(places, full).reshape(target))
    for old, new in runs:
        split |= sum(result.shape[axis] > 1 for axis in new) > sum(places.shape[axis] > 1 for axis in old)
    return result, split


def _runs(shape: Sequence[int], into: Sequence[int]) -> list[tuple[range, range]]:
    """The smallest runs of axes of two shapes that have as many elements; axes of size 1 at the end are in none."""
    runs, i, j = [], 0, 0
    while i < len(shape) and j < len(into):
        start, other = i, j
        left, right = shape[i], into[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * shape[i], i + 1
            else:
                right, j = right * into[j], j + 1
        runs.append((range(start, i), range(other, j)))
    return runs
