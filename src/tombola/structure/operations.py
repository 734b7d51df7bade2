"""Operations between layers, as torch-pruning's graph and autograd describe them."""

from __future__ import annotations

import math
import re
from typing import Any

BY_CHANNEL = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Clone", "ToCopy", "Relu", "LeakyRelu", "Elu", "Gelu", "Silu", "Mish"),
    *("Tanh", "Sigmoid", "Hardtanh", "Hardswish", "Hardsigmoid", "Softplus", "Threshold", "Clamp", "Squeeze"),
    *("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "UpsampleNearest", "UpsampleBilinear"),
}
"""Operations, by the stems of their autograd names, that keep every channel in its place."""


def keeps_channels(node: Any) -> bool:
    """Whether an operation between layers leaves every channel in a place that is known."""
    function, kind = node.grad_fn, type(node.module).__name__
    if not hasattr(function, "name"):
        return False
    if kind in ("_ConcatOp", "_SplitOp"):
        return node.module.offsets is not None and function._saved_dim == 1
    sizes = operands(function)[0]
    if kind == "_SliceOp":
        return len(sizes) == 4 and function._saved_dim < 4
    if kind == "_ReshapeOp":
        mapped = any(step.index_mapping[0] is not None for step in node.dependencies)
        return mapped or (len(sizes) > 2 and math.prod(sizes[2:]) == 1)
    stem = re.sub(r"\d+[dD].*$", "", re.sub(r"Backward\d*$", "", function.name()))
    if stem in ("Mean", "Sum", "Amax"):
        return len(sizes) > 2 and all(signed(d) % len(sizes) > 1 for d in getattr(function, "_saved_dim", (0,)))
    if stem == "ConstantPadNd":
        return not any(function._saved_pad[2 * (len(sizes) - 2) :])
    return stem in BY_CHANNEL and not broadcasts(function)


def broadcasts(function: Any) -> bool:
    """Whether an operand has another number of channels than the result, so that one of its channels reaches many."""
    shape, taken = shape_of(function), operands(function)
    by_element = len(function.next_functions) > 1
    return by_element and any(len(own) != len(shape) or own[1:2] != shape[1:2] for own in taken)


def shape_of(function: Any) -> tuple[int, ...]:
    """The shape of what an operation gives."""
    return tuple(function._input_metadata[0].shape)


def operands(function: Any) -> list[tuple[int, ...]]:
    """The shapes of what an operation takes, numbers and what needs no gradient left out."""
    return [tuple(own._input_metadata[at].shape) for own, at in function.next_functions if own is not None] or [()]


def has_constant(node: Any) -> bool:
    """Whether a term of a sum is not computed by the network: its input, or a number."""
    function = node.grad_fn
    if type(node.module).__name__ != "_ElementWiseOp" or not hasattr(function, "name"):
        return False
    is_sum = function.name().startswith(("AddBackward", "SubBackward"))
    terms = [own for own, _ in function.next_functions]
    return is_sum and len(terms) > 1 and any(own is None or "AccumulateGrad" in own.name() for own in terms)


def signed(dim: int) -> int:
    """A dimension as autograd saves it, where what counts from the end has wrapped round."""
    return dim if dim < 2**63 else dim - 2**64
