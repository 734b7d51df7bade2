"""Conv-2, Conv-4 and Conv-6: the small VGG-like networks of Frankle & Carbin (ICLR 2019)."""

from __future__ import annotations

from torch import nn

from tombola.zoo.input_shapes import Shape, image_sides, scaled


def conv_n(layers: int, input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """`layers` 3×3 convolutions of 64, 128, 256 channels, two before each max-pool, then 256, 256, classes.

    On 3×32×32 and ten classes: 4.3 M (Conv-2), 2.4 M (Conv-4), 2.3 M (Conv-6) weights.

    Args:
        layers: how many convolutions, an even number.
        input_shape: of one sample, (channels, height, width).
        classes: how many classes the network tells apart.
        width: channels and hidden units, as a multiple of the network's own.

    Raises:
        TombolaError: if the inputs are no images, or too small for the max-pools.

    Examples:
        >>> sum(p.numel() for p in conv_n(2, (3, 32, 32), 10).parameters() if p.ndim > 1)
        4300992
    """
    pairs = layers // 2
    channels, image_height, image_width = image_sides(f"conv{layers}", input_shape, 2**pairs)
    convolutions: list[nn.Module] = []
    for pair in range(pairs):
        outputs = scaled(64 * 2**pair, width)
        for inputs in (channels, outputs):
            convolutions += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        convolutions += [nn.MaxPool2d(2)]
        channels = outputs
    hidden = scaled(256, width)
    features = channels * (image_height // 2**pairs) * (image_width // 2**pairs)
    return nn.Sequential(
        *convolutions,
        nn.Flatten(),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
