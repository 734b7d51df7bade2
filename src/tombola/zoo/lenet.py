"""LeNet-300-100 and LeNet-5 (LeCun et al., Proceedings of the IEEE 1998)."""

from __future__ import annotations

import math

from torch import nn

from tombola.zoo.input_shapes import Shape, image_sides, scaled


def lenet_300_100(input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """Two hidden layers of 300 and 100 units on flattened inputs of any shape: 266,200 weights on 28×28.

    Args:
        input_shape: of one sample, any.
        classes: how many classes the network tells apart.
        width: hidden units, as a multiple of the network's own.
    """
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

    The first convolution is padded; the second is padded too on images of less than 12 pixels a side, of which it would
    leave nothing.

    Args:
        input_shape: of one sample, (channels, height, width).
        classes: how many classes the network tells apart.
        width: channels and hidden units, as a multiple of the network's own.

    Raises:
        TombolaError: if the inputs are no images, or smaller than 4×4.
    """
    channels, *image_sizes = image_sides("lenet5", input_shape, 4)
    padding = 2 if min(image_sizes) < 12 else 0
    sides = [(side // 2 - 4 + 2 * padding) // 2 for side in image_sizes]
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
