"""What operations do with channels that take them in blocks: parts, slices, pixels of a channel, groups in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tombola.structure.marks import Places, along, distinct
from tombola.structure.operation_calls import Call
from tombola.structure.rules import Results, rule, unknown
from tombola.structure.rules_of_places import moved_marks


@rule("chunk", "split", "split_with_sizes")
def chunked(call: Call) -> Results:
    """A number of parts of one size, which stays one while the same channels go from each."""
    found, by_number = moved_marks(call)
    if not by_number:
        return found
    call.links.guessed |= call.name != "chunk"
    parts = [part.places for part in found if part is not None]
    if len({part.shape for part in call.results}) > 1:
        call.links.pin(call.marks(call.args[0]), call.name)
        return found
    for part in parts[1:]:
        for places, others in zip(parts[0], part, strict=True):
            call.links.tie(places, others)
    return found


@rule("slice")
def sliced(call: Call) -> Results:
    """A block of channels, where all blocks of its size lose the same; or each so-many-th channel."""
    found, by_number = moved_marks(call)
    if not by_number:
        return found
    x, axis = call.args[0], call.given(1, "dim", 0)
    size, marks = x.shape[axis], call.marks(x)
    assert marks is not None
    start, stop, step = slice(call.given(2, "start"), call.given(3, "end"), call.given(4, "step", 1)).indices(size)
    length = stop - start if step == 1 else step
    fits = length > 1 and size % length == 0 and (start % length == 0 if step == 1 else start < step and stop == size)
    if not fits or marks.axes != {axis % x.ndim} or marks.takes is not None:
        call.links.pin(marks, call.name)
        return found
    for places in marks.places:
        blocks = np.broadcast_to(places.ravel(), size).reshape(-1, length)
        call.links.tie(blocks[:1] if step == 1 else blocks[:, :1], blocks)
    call.links.guessed |= step == 1
    return found


@rule("pixel_shuffle")
def shuffled_to_pixels(call: Call) -> Results:
    """The channels of a block become the pixels of one channel: they can only go together."""
    x, factor = call.args[0], call.args[1]
    marks = call.marks(x)
    if marks is None or marks.axes - {x.ndim - 3} or marks.takes is not None:
        return unknown(call)
    if not marks.axes:
        return [marks.plain()]

    def blocks(terms: Sequence[Places]) -> list[Places]:
        apart = [own.reshape(1, 1) if own.size == 1 else own.reshape(-1, factor**2).T for own in terms]
        for own in apart:
            call.links.tie(own[:1], own)
        return [along(one, x.ndim - 3, x.ndim) for own in apart for one in own]

    return [replace(marks.plain(), feeds=distinct(blocks(marks.feeds)), uses=distinct(blocks(marks.uses)))]


@rule("native_channel_shuffle", "channel_shuffle")
def shuffled(call: Call) -> Results:
    """The channels of all groups in turn, which lose the same in each."""
    found, _ = moved_marks(call)
    x, groups = call.args[:2]
    marks = call.marks(x)
    if marks is None or marks.axes - {1} or marks.takes is not None:
        return unknown(call)
    for places in marks.places:
        if places.size > 1:
            blocks = places.reshape(groups, -1)
            call.links.tie(blocks[:1], blocks)
    return found
