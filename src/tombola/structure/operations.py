"""What each of torch's operations does with the channels of the tensors that it takes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tombola.structure.marks import ABSENT, Marks, Places, along, compressed, deepened, distinct, reshaped, varied
from tombola.structure.wiring import PINNED

if TYPE_CHECKING:
    from tombola.structure.tracer import Call

Results = Iterable[Marks | None]
Rule = Callable[["Call"], Results]

RULES: dict[str, Rule] = {}
NO_SUM = {"add", "sub", "rsub"}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Say that a function is the rule of the operations of these names."""

    def put(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return put


def rule_for(function: Any, name: str) -> Rule:
    """The rule of an operation."""
    if name in RULES:
        return RULES[name]
    if torch.Tag.pointwise in function.tags:
        return elementwise
    if re.search(r"(pool|upsample\w*|reflection_pad|replication_pad)\d?d?", name):
        return local
    return unknown


def unknown(call: Call) -> Results:
    """Nothing is known about what it does."""
    call.lose()
    return [None] * len(call.results)


# ---------------------------------------------------------------- layers


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


@rule("linear")
def linear(call: Call) -> Results:
    """A linear layer, where torch does not take it apart."""
    x, weight = call.args[:2]
    mine = call.marks(weight)
    if mine is None or weight.ndim != 2:
        call.lose()
        return [None]
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
        return [_norm(call, x, (weight, bias), -1)]
    for own in (weight, bias):
        call.links.pin(call.marks(own), call.name)
    last = set(range(x.ndim - len(shape), x.ndim))
    return [_unscaled(call, x, (weight, bias), last, last)]


# ---------------------------------------------------------------- element by element


@rule("clone", "_to_copy", "detach", "alias", "lift_fresh", "contiguous", "native_dropout", "bernoulli", "rrelu_with_noise")
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
        if call.name not in NO_SUM:
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
        return unknown(call)
    fixed = [t for t in tensors if not any(t is own for own, _ in operands) and _size_along(t, axes, result.ndim) > 1]
    if fixed:
        for _, marks in operands:
            call.links.pin(marks, call.name)
    return [_combined(call, operands, constant=len(operands) < len(tensors) or call.name in NO_SUM), None]


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
    if killers:
        feeding = every[killers[0]]
        others = [places for marks in every if marks is not feeding for places in (*marks.feeds, *marks.uses)]
        return Marks(feeding.feeds, distinct([*feeding.uses, *others]), kept)
    feeds = distinct([places for marks in every for places in marks.feeds])
    dark = _zeros(call, [tensor for tensor, _ in operands])
    lit = any(marks.lit for marks in every)
    if not dark:
        if call.name in NO_SUM:
            feeds = (*feeds, np.full((1,) * feeds[0].ndim, PINNED))
        else:
            lit = True
    return Marks(feeds, distinct([places for marks in every for places in marks.uses]), kept, lit)


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
    kwargs = tuple((name, sample(own)) for name, own in call.kwargs.items() if name not in ("device", "layout", "pin_memory"))
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


# ---------------------------------------------------------------- places


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
    if split:
        call.links.pin(marks, call.name)
    return [moved]


@rule("permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "slice", "select", "split", "split_with_sizes")
@rule("unbind", "chunk", "flip", "roll", "repeat", "repeat_interleave", "unfold", "diagonal", "as_strided", "pixel_shuffle")
@rule("pixel_unshuffle", "native_channel_shuffle", "channel_shuffle", "index", "index_select", "gather", "narrow", "rot90")
@rule("unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "tensor_split", "movedim", "swapaxes", "take_along_dim")
@rule("permute_copy", "transpose_copy", "expand_copy", "slice_copy", "select_copy", "unsqueeze_copy", "squeeze_copy")
def moved(call: Call) -> Results:
    """Elements of one tensor in other places; what is moved are the channels' numbers, by the operation itself."""
    x, *rest = call.args
    marks = call.marks(x)
    if marks is None or any(call.marks(t) is not None for t in call.tensors if t is not x):
        return unknown(call)
    rest = [_still(value) for value in rest]
    kwargs = {name: _still(value) for name, value in call.kwargs.items()}
    found: list[list[Places]] = [[] for _ in call.results]
    by_number = False
    for places in marks.places:
        full = torch.from_numpy(np.ascontiguousarray(places)).expand(x.shape)
        try:
            moved = call.function(full, *rest, **kwargs)
        except Exception:
            return unknown(call)
        for own, result in zip(found, moved if isinstance(moved, list | tuple) else [moved], strict=True):
            own.append(compressed(result.numpy()))
            by_number |= not np.array_equal(_profile(own[-1]), _profile(places))
    if by_number:
        call.links.pin(marks, call.name)
    return [_rebuilt(marks, own) for own in found]


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
    for m in own[1:]:
        call.links.tie(own[0].first, m.first)
    feeds = distinct([places for m in own for places in m.feeds])
    if len(own) < len(marked):
        feeds = (*feeds, np.full((1,) * feeds[0].ndim, PINNED))
        for m in own:
            call.links.pin(m, call.name)
    return Marks(feeds, distinct([p for m in own for p in m.uses]), lit=any(m.lit for m in own))


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
        marks = marks.moved(lambda places: np.pad(places, [e if axis in varied(places) else (0, 0) for axis, e in enumerate(edges)]))
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


# ---------------------------------------------------------------- along an axis


@rule("mean", "sum", "amax", "amin", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm", "prod", "any", "all")
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
    taken = set() if marks.takes is None else varied(marks.takes)
    if marks.axes & dims or taken & dims:
        call.links.pin(marks, call.name)
        return [None] * len(call.results)

    def shorter(places: Places) -> Places:
        return places if call.results[0].ndim == x.ndim else places.squeeze(tuple(dims))

    again = marks.plain().moved(shorter)
    return [again] * len(call.results)


@rule("_softmax", "_log_softmax", "softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp", "sort", "topk", "cummax", "cummin")
def along_axis(call: Call) -> Results:
    """Elements that depend on others along one axis."""
    x = call.args[0]
    place = 2 if call.name == "topk" else 1
    dim = call.given(place, "dim", -1) % max(1, x.ndim)
    marks = call.marks(x)
    assert marks is not None
    if dim in marks.axes or marks.takes is not None:
        call.links.pin(marks, call.name)
        return [replace(marks.plain(), takes=None, lit=True)] if "softmax" in call.name else [None] * len(call.results)
    return [replace(marks.plain(), lit=marks.lit or "softmax" in call.name)] * len(call.results)


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
    query, key, value, *_ = call.args
    for tensor in call.tensors:
        if tensor is not value:
            call.links.pin(call.marks(tensor), call.name)
    marks = call.marks(value)
    if marks is None or value.ndim - 2 in marks.axes or value.shape[:-2] != query.shape[:-2]:
        call.links.pin(marks, call.name)
        return [None]
    return [marks.plain()]
