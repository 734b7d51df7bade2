"""Conv-2, Conv-4 and Conv-6: the small VGG-like networks of Frankle & Carbin (ICLR 2019)."""

from __future__ import annotations

from torch import nn

from tombola.zoo.input_shapes import Shape, image_sides, scaled


def conv_n(layers: int, input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """`layers` 3×3 convolutions of 64, 128, 256 channels, two before each max-pool, then 256, 256, classes.

    On 3×32×32 and ten classes: 4.3 M (Conv-2), 2.4 M (Conv-4), 2.3 M (Conv-6) weights.
    """
    pairs = layers // 2
    channels, height, wide = image_sides(f"conv{layers}", input_shape, 2**pairs)
    parts: list[nn.Module] = []
    for pair in range(pairs):
        out = scaled(64 * 2**pair, width)
        parts += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(), nn.Conv2d(out, out, 3, padding=1), nn.ReLU()]
        parts += [nn.MaxPool2d(2)]
        channels = out
    hidden = scaled(256, width)
    features = channels * (height // 2**pairs) * (wide // 2**pairs)
    return nn.Sequential(
        *parts,
        nn.Flatten(),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
