"""The network of the Cubist Spiral (Zhang & Papyan, ICML 2024), and narrower networks cut from its corner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.zoo.input_shapes import Shape, scaled

SPIRAL_WIDTH = 16


def spiral_mlp(input_shape: Shape, classes: int, width: float = 1.0) -> nn.Sequential:
    """Three hidden layers of 16 units on flattened inputs: 560 weights and 49 biases in the plane.

    For two classes it has one output, the log-odds of the second.

    Args:
        input_shape: of one sample, any.
        classes: how many classes the network tells apart.
        width: hidden units, as a multiple of the network's own.

    Examples:
        >>> sum(p.numel() for p in spiral_mlp((2,), 2).parameters())
        609
    """
    hidden = scaled(SPIRAL_WIDTH, width)
    return _mlp([math.prod(input_shape), hidden, hidden, hidden, 1 if classes == 2 else classes])


def spiral_block(widths: tuple[int, int, int], of: int = SPIRAL_WIDTH) -> nn.Sequential:
    """The first units of each hidden layer of a freshly initialised wide network, with their weights.

    It computes what the wide network computes with every weight outside these top-left blocks at 0.

    Args:
        widths: how many units of each hidden layer, each from 1 to `of`.
        of: the units in each hidden layer of the wide network.

    Raises:
        TombolaError: if a width is below 1 or above `of`.

    Examples:
        >>> [layer.weight.shape[0] for layer in spiral_block((4, 5, 6)) if isinstance(layer, nn.Linear)]
        [4, 5, 6, 1]
    """
    if not all(1 <= width <= of for width in widths):
        raise TombolaError(f"the widths are {', '.join(map(str, widths))}; give three numbers from 1 to {of}")
    wide, block = spiral_mlp((2,), 2, of / SPIRAL_WIDTH), _mlp([2, *widths, 1])
    with torch.no_grad():
        for narrow_values, wide_values in zip(block.parameters(), wide.parameters(), strict=True):
            narrow_values.copy_(wide_values[tuple(slice(size) for size in narrow_values.shape)])
    return block


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
