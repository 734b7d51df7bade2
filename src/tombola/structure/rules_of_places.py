"""What operations do with channels that move elements, or join them along an axis."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.structure.marks import ABSENT, Marks, Places, compressed, deepened, distinct, reshaped, varied
from tombola.structure.operation_calls import Call
from tombola.structure.rules import Results, rule, unknown
from tombola.structure.rules_of_elements import elementwise, together
from tombola.structure.wiring import PINNED

FOLLOWING = {"repeat", "expand", "flip", "pixel_unshuffle"}
"""Operations that move channels in a way that does not depend on how many there are."""


TURNS: Mapping[str, Callable[..., Places]] = {
    "t": np.transpose,
    "transpose": np.swapaxes,
    "permute": np.transpose,
    "expand": lambda places, sizes: deepened(places, len(sizes)),
}
"""Operations that change the order of axes, or repeat what is the same along one."""


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy", "view_copy")
def viewed(call: Call) -> Results:
    """Another shape of the same elements."""
    x, result = call.args[0], call.results[0]
    marks, split = call.marks(x), False
    if marks is None or x.dtype != result.dtype:
        return unknown(call)

    def move(places: Places) -> Places:
        nonlocal split
        moved, own = reshaped(places, x.shape, result.shape)
        split |= own
        return moved

    moved = marks.moved(move)
    if split and not _by_blocks(call, marks, moved):
        call.links.pin(marks, call.name)
    return [moved]


def _by_blocks(call: Call, marks: Marks, moved: Marks) -> bool:
    """Take an image's channels apart into blocks, which lose the same channels each; False where it cannot be so."""
    if call.args[0].ndim < 3 or marks.axes != {1} or len(moved.axes) != 2 or marks.takes is not None:
        return False
    for places in moved.places:
        call.links.tie(places.take([0], min(moved.axes)), places)
    call.links.guessed = True
    return True


@rule("permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "select")
@rule(
    "unbind",
    "flip",
    "roll",
    "repeat",
    "repeat_interleave",
    "unfold",
    "diagonal",
    "as_strided",
    "index",
)
@rule("pixel_unshuffle", "index_select", "gather", "narrow", "rot90")
@rule(
    "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "tensor_split", "movedim", "swapaxes", "take_along_dim"
)
@rule("permute_copy", "transpose_copy", "expand_copy", "slice_copy", "select_copy", "unsqueeze_copy", "squeeze_copy")
def moved(call: Call) -> Results:
    """Elements of one tensor in other places; what is moved are the channels' numbers, by the operation itself."""
    found, by_number = moved_marks(call)
    if by_number and call.name not in FOLLOWING:
        call.links.pin(call.marks(call.args[0]), call.name)
    return found


def moved_marks(call: Call) -> tuple[list[Marks | None], bool]:
    """What comes of moved elements, and whether the channels lie otherwise than before."""
    x, *rest = call.args
    marks = call.marks(x)
    if marks is None or any(call.marks(t) is not None for t in call.tensors if t is not x):
        return list(unknown(call)), False
    if call.name in TURNS:
        return [marks.moved(lambda places: TURNS[call.name](places, *rest))], False
    rest = [_still(value) for value in rest]
    kwargs = {name: _still(value) for name, value in call.kwargs.items()}
    found: list[list[Places]] = [[] for _ in call.results]
    by_number = False
    for places in marks.places:
        full = torch.from_numpy(np.ascontiguousarray(places)).expand(x.shape)
        try:
            moved = call.function(full, *rest, **kwargs)
        except Exception:
            return list(unknown(call)), False
        for own, result in zip(found, moved if isinstance(moved, list | tuple) else [moved], strict=True):
            own.append(compressed(result.numpy()))
            by_number |= not np.array_equal(_profile(own[-1]), _profile(places))
    return [_rebuilt(marks, own) for own in found], by_number


def _profile(places: Places) -> np.ndarray:
    return places.squeeze() if varied(places) else places.ravel()[:1]


def _still(value: Any) -> Any:
    """An argument for numbers instead of values: indices of zeros, since no channel lies along an axis with indices."""
    if isinstance(value, Tensor):
        return value.cpu() if value.dtype == torch.bool else torch.zeros(value.shape, dtype=torch.long)
    return [_still(own) for own in value] if isinstance(value, list | tuple) else value


def _rebuilt(marks: Marks, places: list[Places]) -> Marks:
    feeds, uses = len(marks.feeds), len(marks.feeds) + len(marks.uses)
    return replace(
        marks,
        feeds=tuple(places[:feeds]),
        uses=tuple(places[feeds:uses]),
        takes=None if marks.takes is None else places[-1],
    )


@rule("cat", "concat", "stack")
def joined(call: Call) -> Results:
    """Tensors side by side."""
    tensors, result = list(call.args[0]), call.results[0]
    axis = call.given(1, "dim", 0) % result.ndim
    tensors = [t for t in tensors if t.ndim == result.ndim - (call.name == "stack") and t.numel()]
    marked = [call.marks(t) for t in tensors]
    if call.name == "stack":
        marked = [m and m.moved(lambda places: np.expand_dims(places, axis)) for m in marked]
    sizes = [1 if call.name == "stack" else t.shape[axis] for t in tensors]
    axes = set().union(*(m.axes for m in marked if m is not None))
    if any(m is not None and m.takes is not None for m in marked) or len(axes) > 1:
        return unknown(call)
    if call.name == "stack" or (axes and axis not in axes):
        return [_overlaid(call, tensors, marked, axes)]
    depth = max(len(m.feeds) for m in marked if m is not None)
    width = max(len(m.uses) for m in marked if m is not None)
    always = Marks((np.full((1,) * result.ndim, PINNED),))
    feeds = [_side_by_side([_term(m or always, n, "feeds") for m in marked], axis, sizes) for n in range(depth)]
    uses = [_side_by_side([_term(m or always, n, "uses") for m in marked], axis, sizes) for n in range(width)]
    return [Marks(tuple(feeds), tuple(uses), lit=any(m is not None and m.lit for m in marked))]


def _term(marks: Marks, number: int, kind: str) -> Places:
    terms = getattr(marks, kind)
    return terms[number] if number < len(terms) else np.full((1,) * marks.feeds[0].ndim, ABSENT)


def _side_by_side(terms: list[Places], axis: int, sizes: list[int]) -> Places:
    full = []
    for places, size in zip(terms, sizes, strict=True):
        shape = list(places.shape)
        shape[axis] = size
        full.append(np.broadcast_to(places, shape))
    return np.concatenate(full, axis)


def _overlaid(call: Call, tensors: list[Tensor], marked: list[Marks | None], axes: set[int]) -> Marks:
    """Side by side along another axis than that of the channels, which are then the same for all parts."""
    own = [m for m in marked if m is not None]
    call.links.met.update(m.origin for m in own if m.scales)
    for m in own[1:]:
        call.links.tie(own[0].first, m.first)
    feeds = distinct([places for m in own for places in m.feeds])
    if len(own) < len(marked):
        feeds = (*feeds, np.full((1,) * feeds[0].ndim, PINNED))
        for m in own:
            call.links.pin(m, call.name)
    return Marks(feeds, distinct([p for m in own for p in m.uses]), lit=any(m.lit for m in own))


@rule("_pack_padded_sequence")
def packed(call: Call) -> Results:
    """Sequences one behind another, without what pads them."""
    marks = call.marks(call.args[0])
    if marks is None or marks.axes - set(range(2, call.args[0].ndim)):
        return unknown(call)
    return [marks.plain().moved(lambda places: places[0]), None]


@rule("constant_pad_nd")
def padded(call: Call) -> Results:
    """More places at the edges."""
    x, sizes, value = call.args[0], call.args[1], call.given(2, "value", 0)
    marks = call.marks(x)
    if marks is None:
        return [None]
    edges = [(0, 0)] * x.ndim
    for number in range(len(sizes) // 2):
        edges[x.ndim - 1 - number] = tuple(sizes[2 * number : 2 * number + 2])
    if marks.takes is not None:
        return unknown(call)
    if any(edges[axis] != (0, 0) for axis in marks.axes):
        call.links.pin(marks, call.name)
        marks = marks.moved(
            lambda places: np.pad(places, [e if axis in varied(places) else (0, 0) for axis, e in enumerate(edges)])
        )
    return [replace(marks.plain(), lit=marks.lit or bool(value))]


def local(call: Call) -> Results:
    """Each channel for itself, over the places around; the places are the last axes."""
    x, result = call.args[0], call.results[0]
    marks = call.marks(x)
    found = re.search(r"(\d)d", call.name)
    last = int(found.group(1)) if found else x.ndim - 2
    if marks is None or marks.takes is not None or any(axis >= x.ndim - last for axis in marks.axes):
        return unknown(call)
    if result.ndim != x.ndim or any(call.marks(t) is not None for t in call.tensors if t is not x):
        return unknown(call)
    return [marks.plain()]


@rule("grid_sampler_2d", "grid_sampler_3d", "grid_sampler")
def sampled(call: Call) -> Results:
    """Each channel at other places."""
    x, grid = call.args[:2]
    marks = call.marks(x)
    if marks is None or call.marks(grid) is not None or marks.axes - {1}:
        return unknown(call)
    return [marks.plain()]


@rule(
    "mean",
    "sum",
    "amax",
    "amin",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "norm",
    "linalg_vector_norm",
    "prod",
    "any",
    "all",
)
@rule("logsumexp", "max", "min", "argmax", "argmin", "median", "mode", "nansum", "count_nonzero")
def reduced(call: Call) -> Results:
    """One element for all along some axes."""
    x = call.args[0]
    if len(call.tensors) > 1:
        return elementwise(call)
    marks = call.marks(x)
    place = 2 if call.name in ("norm", "linalg_vector_norm") else 1
    dims = call.given(place, "dim", None)
    dims = range(x.ndim) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    dims = {dim % x.ndim for dim in dims} if x.ndim else set()
    assert marks is not None
    if marks.takes is not None and varied(marks.takes) & dims:
        call.links.hold(marks.takes.ravel(), call.name)
        marks = replace(marks, takes=None)
    if marks.axes - dims and marks.takes is None:
        marks = together(call, marks, marks.axes & dims)
    if marks.axes & dims:
        call.links.pin(marks, call.name)
        return [None] * len(call.results)

    def shorter(places: Places) -> Places:
        return places if call.results[0].ndim == x.ndim else places.squeeze(tuple(dims))

    again = marks.plain().moved(shorter)
    return [again] * len(call.results)


@rule(
    "_softmax",
    "_log_softmax",
    "softmax",
    "log_softmax",
    "cumsum",
    "cumprod",
    "logcumsumexp",
    "sort",
    "topk",
    "cummax",
    "cummin",
)
def along_axis(call: Call) -> Results:
    """Elements that depend on others along one axis."""
    x = call.args[0]
    place = 2 if call.name == "topk" else 1
    dim = call.given(place, "dim", -1) % max(1, x.ndim)
    marks = call.marks(x)
    assert marks is not None
    if dim in marks.axes and len(marks.axes) > 1 and marks.takes is None:
        marks = together(call, marks, {dim})
    if dim in marks.axes or marks.takes is not None:
        call.links.pin(marks, call.name)
        return [replace(marks.plain(), takes=None, lit=True)] if "softmax" in call.name else [None] * len(call.results)
    return [replace(marks.plain(), lit=marks.lit or "softmax" in call.name)] * len(call.results)
