"""The network of the Cubist Spiral (Zhang & Papyan, ICML 2024), and its top-left blocks."""

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

    Two classes have one output, the log-odds of the second.
    """
    hidden = scaled(SPIRAL_WIDTH, width)
    return _mlp([math.prod(input_shape), hidden, hidden, hidden, 1 if classes == 2 else classes])


def spiral_block(widths: tuple[int, int, int], of: int = SPIRAL_WIDTH) -> nn.Sequential:
    """The first units of each hidden layer of a freshly initialised 2-of-of-of-1 network, with the values it has there.

    So it computes what the wide network does with every weight outside these top-left blocks at 0. Raises TombolaError
    for widths that the wide network does not have.
    """
    if not all(1 <= own <= of for own in widths):
        raise TombolaError(f"the widths are {', '.join(map(str, widths))}; give three numbers from 1 to {of}")
    wide, block = spiral_mlp((2,), 2, of / SPIRAL_WIDTH), _mlp([2, *widths, 1])
    with torch.no_grad():
        for own, whole in zip(block.parameters(), wide.parameters(), strict=True):
            own.copy_(whole[tuple(slice(size) for size in own.shape)])
    return block


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
