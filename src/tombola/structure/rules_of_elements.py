"""What operations do with channels that compute each element from the elements at its place."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.structure.marks import Marks, Places, deepened, distinct
from tombola.structure.operation_calls import Call
from tombola.structure.rules import Results, rule, unknown
from tombola.structure.wiring import PINNED

SUMS = {"add", "sub", "rsub"}


@rule(
    "clone",
    "_to_copy",
    "detach",
    "alias",
    "lift_fresh",
    "contiguous",
    "native_dropout",
    "bernoulli",
    "rrelu_with_noise",
)
@rule("_prelu_kernel", "tril", "triu", "hardswish", "log_sigmoid_forward", "rrelu_with_noise_functional", "dropout")
def elementwise(call: Call) -> Results:
    """Each element of the result comes from the elements at its place."""
    result = call.results[0]
    tensors = [tensor for tensor in call.tensors if tensor.ndim <= result.ndim]
    marked = [(tensor, marks) for tensor in tensors if (marks := call.marks(tensor)) is not None]
    if len(tensors) < len(call.tensors):
        return unknown(call)
    if len(marked) == 1 and len(tensors) == 1:
        marks = marked[0][1]
        if call.name in ("clone", "_to_copy", "detach", "alias", "lift_fresh", "contiguous"):
            return [marks, *[None] * len(call.results)]
        if call.name not in SUMS:
            return [replace(marks.plain(), lit=marks.lit or not _zeros(call, [marked[0][0]]))]
    operands: list[tuple[Tensor, Marks]] = []
    for tensor, marks in marked:
        broadcast = tuple(tensor.shape) != tuple(result.shape)
        if broadcast and not marks.axes and all(places.size == 1 for places in marks.places) and _some(marks):
            call.links.pin(marks, call.name)  # its one channel reaches many
        else:
            operands.append((tensor, marks.moved(lambda places: deepened(places, result.ndim))))
    if not operands:
        return [None]
    axes = set().union(*(marks.axes for _, marks in operands))
    if any(marks.axes not in (axes, set()) for _, marks in operands):
        axes = set[int].intersection(*(marks.axes for _, marks in operands if marks.axes))
        if not axes or any(marks.takes is not None for _, marks in operands):
            return unknown(call)
        operands = [(tensor, together(call, marks, marks.axes - axes)) for tensor, marks in operands]
    fixed = [t for t in tensors if not any(t is own for own, _ in operands) and _size_along(t, axes, result.ndim) > 1]
    if fixed:
        for _, marks in operands:
            call.links.pin(marks, call.name)
    return [_combined(call, operands, constant=len(operands) < len(tensors) or call.name in SUMS), None]


def together(call: Call, marks: Marks, axes: Collection[int]) -> Marks:
    """The same for all places along some axes, since the channels along these then go together."""

    def terms(every: Sequence[Places]) -> tuple[Places, ...]:
        parts = list(every)
        for axis in axes:
            for places in parts:
                call.links.tie(places.take([0], axis), places)
            parts = [places.take([at], axis) for places in parts for at in range(places.shape[axis])]
        return distinct(parts)

    return replace(marks, feeds=terms(marks.feeds), uses=terms(marks.uses))


def _some(marks: Marks) -> bool:
    return any(places.max() > 0 for places in marks.places)


def _size_along(tensor: Tensor, axes: set[int], ndim: int) -> int:
    shape = (1,) * (ndim - tensor.ndim) + tuple(tensor.shape)
    return math.prod(shape[axis] for axis in axes)


def _combined(call: Call, operands: list[tuple[Tensor, Marks]], constant: bool) -> Marks:
    """The marks of what is computed from several tensors."""
    killers = [at for at, (tensor, marks) in enumerate(operands) if not marks.living and _zeros(call, [tensor])]
    scale = next((at for at, (_, marks) in enumerate(operands) if marks.scales), None)
    if scale is not None and len(operands) == 2 and not operands[1 - scale][1].scales and 1 - scale in killers:
        (_, marks), (_, own) = operands[1 - scale], operands[scale]
        (axis,) = own.axes
        call.links.consume(marks, axis, own.first.ravel(), call.name)
        call.links.met.add(own.origin)
        return Marks((own.first,))
    for _, marks in operands:
        if marks.scales:
            call.links.met.add(marks.origin)
    for _, marks in operands[1:]:
        call.links.tie(operands[0][1].first, marks.first)
    takes = [marks.takes for _, marks in operands if marks.takes is not None]
    if len(takes) > 1 or (takes and killers == []):
        for own in takes:
            call.links.hold(own.ravel(), call.name)
        takes = []
    kept = takes[0] if takes else None
    every = [marks for _, marks in operands]
    origin = next((marks.origin for marks in every if marks.takes is not None), "") if takes else ""
    if killers:
        feeding = every[killers[0]]
        others = [places for marks in every if marks is not feeding for places in (*marks.feeds, *marks.uses)]
        return Marks(feeding.feeds, distinct([*feeding.uses, *others]), kept, origin=origin)
    feeds = distinct([places for marks in every for places in marks.feeds])
    dark = _zeros(call, [tensor for tensor, _ in operands])
    lit = any(marks.lit for marks in every)
    if not dark:
        if call.name in SUMS:
            feeds = (*feeds, np.full((1,) * feeds[0].ndim, PINNED))
        else:
            lit = True
    return Marks(feeds, distinct([places for marks in every for places in marks.uses]), kept, lit, origin)


def _zeros(call: Call, dead: Sequence[Tensor]) -> bool:
    """Whether an operation gives zeros where these tensors are zero, whatever the others are: by trying it."""
    ids = {id(tensor) for tensor in dead}

    def sample(value: Any) -> Any:
        if isinstance(value, Tensor):
            kind = "dead" if id(value) in ids else "bool" if value.dtype == torch.bool else "living"
            return (kind, value.is_floating_point())
        if isinstance(value, list | tuple):
            return tuple(map(sample, value))
        return value

    args = tuple(map(sample, call.args))
    kwargs = tuple(
        (name, sample(own)) for name, own in call.kwargs.items() if name not in ("device", "layout", "pin_memory")
    )
    try:
        return _gives_zeros(call.function, args, kwargs)
    except TypeError:  # an argument has no hash
        return False


@lru_cache(maxsize=4096)
def _gives_zeros(function: Any, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> bool:
    generator = torch.Generator().manual_seed(0)

    def made(value: Any) -> Any:
        if isinstance(value, tuple) and len(value) == 2 and value[0] in ("dead", "bool", "living"):
            kind, floating = value
            if kind == "bool":
                return torch.arange(8) % 2 == 0
            values = torch.randn(8, generator=generator)
            if kind == "dead":
                values = torch.zeros(8)
            return values if floating else values.mul(9).long()
        return [made(own) for own in value] if isinstance(value, tuple) else value

    try:
        result = function(*map(made, args), **{name: made(value) for name, value in kwargs})
    except Exception:
        return False
    result = result[0] if isinstance(result, list | tuple) else result
    return isinstance(result, Tensor) and not result.count_nonzero()


@rule("empty_like", "zeros_like", "ones_like", "rand_like", "randn_like", "full_like", "randint_like")
@rule("zero", "fill", "normal", "uniform", "new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided")
def alike(call: Call) -> Results:
    """A tensor of another's size: where that is cut, this one is smaller too."""
    marks = call.marks(call.args[0])
    if marks is None or call.results[0].shape != call.args[0].shape:
        return [None]
    return [replace(marks.plain(), takes=None, lit=True)]


@rule("copy")
def copied(call: Call) -> Results:
    """Writes a tensor into another one."""
    into, given = call.args[:2]
    marks = call.marks(given)
    call.links.pin(call.marks(into), call.name)
    if marks is None:
        return [None]
    return [marks.plain().moved(lambda places: deepened(places, into.ndim))]


@rule("glu")
def gated(call: Call) -> Results:
    """The first half of the channels times a gate of the second."""
    x, axis = call.args[0], call.given(1, "dim", -1)
    axis, marks = axis % x.ndim, call.marks(x)
    if marks is None or axis not in marks.axes:
        return [marks and marks.plain()]
    if marks.axes != {axis} or marks.takes is not None:
        return unknown(call)
    one, two = (marks.moved(lambda places, own=own: _half(places, axis, own)) for own in (0, 1))
    call.links.tie(one.first, two.first)
    return [Marks(one.feeds, distinct([*one.uses, *two.feeds, *two.uses]), lit=one.lit)]


def _half(places: Places, axis: int, which: int) -> Places:
    return places if places.shape[axis] == 1 else np.split(places, 2, axis)[which]
