"""What linear layers, convolutions, attention and norms do with channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from tombola.structure.marks import Marks, along, deepened, varied
from tombola.structure.operation_calls import Call
from tombola.structure.rules import Results, rule


@rule("mm", "bmm")
def product(call: Call) -> Results:
    """Rows times columns."""
    yield _contracted(call, *call.args[:2])


@rule("addmm", "baddbmm")
def product_and_bias(call: Call) -> Results:
    """Rows times columns, and a bias to each column."""
    bias, *factors = call.args[:3]
    marks = _contracted(call, *factors)
    yield _with_bias(call, marks, bias, call.results[0])


@rule("embedding")
def embedded(call: Call) -> Results:
    """The rows of a table."""
    weight, numbers = call.args[:2]
    marks = call.marks(weight)
    if marks is None or call.marks(numbers) is not None or marks.axes - {1}:
        call.lose()
        return [None]
    call.links.met.add(marks.origin)
    return [marks.plain().moved(lambda places: deepened(places, numbers.ndim + 1))]


@rule("linear")
def linear(call: Call) -> Results:
    """A linear layer, where torch does not take it apart."""
    x, weight = call.args[:2]
    mine = call.marks(weight)
    if mine is None or weight.ndim != 2 or (mine.takes is None and not _is_table(mine, weight, 1)):
        call.lose()
        return [None]
    if mine.takes is None:
        call.links.multiply(call.marks(x), x.ndim - 1, mine, call.name)
        call.links.met.add(mine.origin)
        return [_with_bias(call, None, call.given(2, "bias"), call.results[0])]
    turned = mine.moved(np.transpose)
    marks = _by_weight(call, x, turned, x.ndim)
    return [_with_bias(call, marks, call.given(2, "bias"), call.results[0])]


def _contracted(call: Call, a: Tensor, b: Tensor) -> Marks | None:
    left, right = call.marks(a), call.marks(b)
    if right is not None and right.takes is not None:
        return _by_weight(call, a, right, a.ndim)
    if left is not None and left.takes is not None:
        turned = left.moved(lambda places: np.swapaxes(places, -1, -2))
        result = _by_weight(call, b, turned, b.ndim, axis=-2)
        return None if result is None else result.moved(lambda places: np.swapaxes(places, -1, -2))
    for table, factor, along_table, x, axis in ((right, b, -2, a, -1), (left, a, -1, b, -2)):
        if table is not None and _is_table(table, factor, along_table):
            call.links.multiply(call.marks(x), x.ndim + axis, table, call.name)
            call.links.met.add(table.origin)
            return None
    kept = []
    for marks, inner in ((left, a.ndim - 1), (right, b.ndim - 2)):
        if marks is not None and inner in marks.axes:
            call.links.pin(marks, call.name)
        elif marks is not None and marks.axes:
            kept.append(marks)
        else:
            call.links.pin(marks, call.name)
    if len(kept) == 2:
        call.lose()
    return replace(kept[0].plain(), lit=kept[0].lit) if len(kept) == 1 else None


def _is_table(marks: Marks, factor: Tensor, axis: int) -> bool:
    """Whether a factor is a table of several rows that no layer holds, whose channels lie along an axis."""
    return marks.scales and marks.axes == {axis % factor.ndim} and min(factor.shape[-2:]) > 1


def _by_weight(call: Call, x: Tensor, weight: Marks, ndim: int, axis: int = -1) -> Marks | None:
    """What a weight (inputs, outputs) makes of a tensor."""
    assert weight.takes is not None
    outputs, inputs = weight.feeds[0], weight.takes
    if varied(inputs) - {inputs.ndim - 2} or varied(outputs) - {outputs.ndim - 1} or len(weight.feeds) > 1:
        call.links.pin(weight, call.name)
        call.links.pin(call.marks(x), call.name)
        return None
    taken = np.broadcast_to(inputs.ravel(), x.shape[axis])
    call.links.consume(call.marks(x), ndim + axis, taken, call.name)
    call.links.met.add(weight.origin)
    return Marks((along(outputs.ravel(), ndim - 1, ndim),), origin=weight.origin)


def _with_bias(call: Call, marks: Marks | None, bias: Tensor | None, result: Tensor) -> Marks | None:
    if bias is None:
        return marks
    own = call.marks(bias)
    if marks is None:
        call.links.pin(own, call.name)
        return None
    if own is None or own.first.size != marks.first.size:
        call.links.pin(own, call.name)
        call.links.pin(marks if bias.numel() > 1 else None, call.name)
        return replace(marks.plain(), feeds=(*marks.feeds, np.zeros((1,) * result.ndim, np.int64)))
    if (own.first.ravel() == marks.first.ravel()).all():
        return marks
    places = deepened(own.first, result.ndim) if own.first.ndim <= result.ndim else marks.first
    call.links.tie(places, marks.first)
    return replace(marks.plain(), feeds=(*marks.feeds, places))


@rule("convolution", "_convolution", "convolution_overrideable")
def convolution(call: Call) -> Results:
    """A convolution of any kind."""
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    mine, reason = call.marks(weight), call.name
    if mine is None:
        call.lose()
        return [None]
    out_axis = 1 if transposed else 0
    outputs = mine.feeds[0]
    if mine.axes - {out_axis} or len(mine.feeds) > 1 or (transposed and groups > 1):
        call.lose()
        return [None]
    if mine.takes is None:  # computed from the layer's weight, such as a standardised one
        call.links.pin(call.marks(x), reason)
    elif varied(mine.takes) - {0, 1}:
        call.lose()
        return [None]
    else:
        by_group = np.broadcast_to(mine.takes.reshape(mine.takes.shape[:2]), weight.shape[:2])
        taken = by_group[:, 0] if transposed else by_group[:: weight.shape[0] // groups].reshape(-1)
        call.links.consume(call.marks(x), x.ndim - weight.ndim + 1, np.ascontiguousarray(taken), reason)
    call.links.met.add(mine.origin)
    axis = x.ndim - weight.ndim + 1
    outputs = np.broadcast_to(outputs.ravel(), call.results[0].shape[axis])
    marks = Marks((along(outputs, axis, x.ndim),), origin=mine.origin)
    if bias is not None and call.marks(bias) is None:
        call.links.pin(marks, reason)
    return [marks]


def _norm(call: Call, x: Tensor, tensors: Sequence[Any], axis: int) -> Marks | None:
    """A norm with one scale or statistic for each channel on an axis: one of its tensors has its marks."""
    own = next((marks for t in tensors if (marks := call.marks(t)) is not None), None)
    if own is None:
        return None
    marks, name = call.marks(x), own.origin
    if own.axes - {own.first.ndim - 1} and len(own.axes) > 1:
        call.lose()
        return None
    channels = np.broadcast_to(own.first.ravel(), x.shape[axis])
    call.links.consume(marks, axis % x.ndim, channels, call.name)
    call.links.met.add(name)
    call.links.follows.setdefault(name, []).append(marks.origin if marks is not None else "")
    return Marks((along(channels, axis % x.ndim, x.ndim),), origin=name)


def _unscaled(call: Call, x: Tensor, tensors: Sequence[Any], axes: set[int], over: set[int]) -> Marks | None:
    """A norm without tensors of its own that have marks.

    Args:
        call: the call.
        x: what is normed.
        tensors: its tensors without marks.
        axes: along which they lie.
        over: axes over which it is normed.
    """
    marks = call.marks(x)
    if marks is None:
        return None
    if marks.takes is not None:
        call.links.hold(marks.takes.ravel(), call.name)
        marks = replace(marks, takes=None)
    fixed = axes if any(isinstance(t, Tensor) and t.numel() > 1 for t in tensors) else set()
    if marks.axes & (fixed | over):
        call.links.pin(marks, call.name)
        return None
    return replace(marks.plain(), lit=any(isinstance(t, Tensor) for t in tensors))


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training",
    "batch_norm",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "_batch_norm_with_update",
    "batch_norm_with_update",
    "_batch_norm_no_update",
)
def batch_norm(call: Call) -> Results:
    """A norm over samples and places, for each channel."""
    x, *rest = call.args
    tensors = [*rest[:4], *call.kwargs.values()]
    if any(call.marks(t) is not None for t in tensors if isinstance(t, Tensor)):
        return [_norm(call, x, tensors, 1)]
    return [_unscaled(call, x, tensors, {1}, set(range(x.ndim)) - {1})]


@rule("native_group_norm", "group_norm")
def group_norm(call: Call) -> Results:
    """A norm over groups of channels."""
    x, weight, bias = call.args[:3]
    if call.marks(weight) is None and call.marks(bias) is None:
        return [_unscaled(call, x, (weight, bias), {1}, set(range(1, x.ndim)))]
    return [_norm(call, x, (weight, bias), 1)]


@rule("native_layer_norm", "layer_norm", "_fused_rms_norm")
def layer_norm(call: Call) -> Results:
    """A norm over the last axes."""
    x, shape, weight, *rest = call.args
    bias = rest[0] if rest and isinstance(rest[0], Tensor) else None
    if len(shape) == 1 and (call.marks(weight) is not None or call.marks(bias) is not None):
        marks = _norm(call, x, (weight, bias), -1)
        if marks is not None:  # called as a function, and by no norm that could become a partial one
            call.links.tie(marks.first, marks.first.ravel()[0])
        return [marks]
    for own in (weight, bias):
        call.links.pin(call.marks(own), call.name)
    last = set(range(x.ndim - len(shape), x.ndim))
    return [_unscaled(call, x, (weight, bias), last, last)]


@rule(
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math",
    "scaled_dot_product_attention",
)
def attention(call: Call) -> Results:
    """Values, mixed over tokens by how queries and keys agree."""
    query, _, value, *_ = call.args
    for tensor in call.tensors:
        if tensor is not value:
            call.links.pin(call.marks(tensor), call.name)
    marks = call.marks(value)
    if marks is None or value.ndim - 2 in marks.axes or value.shape[:-2] != query.shape[:-2]:
        call.links.pin(marks, call.name)
        return [None]
    return [marks.plain()]
