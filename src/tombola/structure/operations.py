"""Operations between layers: which of them leave every channel in a known place."""

from __future__ import annotations

import math

from torch.autograd.graph import Node

from tombola.structure.autograd import dim_of, has_leaf, operands, padding, reduced, shape_of, stem_of
from tombola.structure.torch_pruning import Operation

BY_CHANNEL = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Clone", "ToCopy", "Relu", "LeakyRelu", "Elu", "Gelu", "Silu", "Mish"),
    *("Tanh", "Sigmoid", "Hardtanh", "Hardswish", "Hardsigmoid", "Softplus", "Threshold", "Clamp", "Squeeze"),
    *("Celu", "RreluWithNoise", "LogSigmoid", "Hardshrink", "Softshrink", "Sin", "Cos", "Atan", "Erf", "Exp", "Expm1"),
    *("Log", "Log1P", "Sqrt", "Rsqrt", "Reciprocal", "Pow", "Sign", "Round", "NanToNum", "MaskedFill", "Where"),
    *(
        "Maximum",
        "Minimum",
        "ReflectionPad",
        "ReplicationPad",
        "UpsampleBicubic",
        "UpsampleTrilinear",
        "UpsampleLinear",
    ),
    *("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "UpsampleNearest", "UpsampleBilinear"),
}
"""Operations, by the stems of their autograd names, that keep every channel in its place."""


def keeps_channels(node: Operation) -> bool:
    """Whether an operation between layers leaves every channel, on axis 1, in a known place."""
    function = node.function
    if node.lost or not hasattr(function, "name"):
        return False
    if node.kind in ("concat", "split"):
        return node.placed and dim_of(function) == 1
    sizes = operands(function)[0]
    if node.kind == "slice":
        dim = dim_of(function)
        return len(sizes) == 4 and dim is not None and 0 <= dim < 4
    if node.kind == "reshape":  # one position a channel, as behind a global pooling, is flattened to itself
        return node.placed or (len(sizes) > 2 and math.prod(sizes[2:]) == 1)
    stem = stem_of(function)
    if stem in ("Mean", "Sum", "Amax"):
        return len(sizes) > 2 and all(dim % len(sizes) > 1 for dim in reduced(function))  # not over samples or channels
    if stem == "ConstantPadNd":
        padded = padding(function)  # from the last dimension on, so that what follows is for channels and samples
        return padded is not None and not any(padded[2 * (len(sizes) - 2) :])
    if stem == "PreluKernel":
        return all(math.prod(slope) == 1 for slope in operands(function)[1:])
    return stem in BY_CHANNEL and not broadcasts(function)


def broadcasts(function: Node) -> bool:
    """Whether an operand has another number of channels than the result, so that one of its channels reaches many."""
    result = shape_of(function)
    by_element = len(function.next_functions) > 1
    return by_element and any(len(s) != len(result) or s[1:2] != result[1:2] for s in operands(function))


def has_constant(node: Operation) -> bool:
    """Whether an operation is a sum with a term that is not computed: an input, a parameter or a number."""
    function = node.function
    if node.kind != "elementwise" or not hasattr(function, "name"):
        return False
    is_sum = function.name().startswith(("AddBackward", "SubBackward"))
    return is_sum and len(function.next_functions) > 1 and has_leaf(function)
