"""LeNet-300-100 and LeNet-5."""

from __future__ import annotations

import math

from torch import nn

from tombola.zoo.input_shapes import Shape, image_sides, scaled


def lenet_300_100(input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """Two hidden layers of 300 and 100 units on flattened inputs of any shape: 266,200 weights on 28×28."""
    first, second = scaled(300, width), scaled(100, width)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, classes),
    )


def lenet5(input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """LeCun et al.'s convolutional network with ReLU and max-pooling: 61,470 weights on 28×28.

    The first convolution is padded; the second is padded too on images under 12 pixels, which it would swallow.
    """
    channels, height, wide = image_sides("lenet5", input_shape, 4)
    padding = 2 if min(height, wide) < 12 else 0
    sides = [(side // 2 - 4 + 2 * padding) // 2 for side in (height, wide)]
    first, second = scaled(6, width), scaled(16, width)
    third, fourth = scaled(120, width), scaled(84, width)
    return nn.Sequential(
        nn.Conv2d(channels, first, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * sides[0] * sides[1], third),
        nn.ReLU(),
        nn.Linear(third, fourth),
        nn.ReLU(),
        nn.Linear(fourth, classes),
    )
