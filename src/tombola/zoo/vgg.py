"""VGG with batch norm for small images: one linear layer behind the convolutions (Simonyan & Zisserman, ICLR 2015)."""

from __future__ import annotations

from torch import nn

from tombola.zoo.input_shapes import Shape, image_sides, scaled
from tombola.zoo.starts import Start, draw

STAGES: dict[int, tuple[tuple[int, ...], ...]] = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}


def vgg(depth: int, input_shape: Shape, classes: int, width: float = 1.0, start: Start = "fan-in") -> nn.Module:
    """3×3 convolutions with bias and batch norm in five stages, a max-pool between them, a global average at the end.

    Small images skip the pools that would leave nothing of them. On RGB images and ten classes, VGG-16 has 14.7 M
    convolution and linear weights, VGG-11 9.2 M.

    Args:
        depth: 11 or 16 layers, as the paper counts them.
        input_shape: of one sample, (channels, height, width).
        classes: how many classes the network tells apart.
        width: channels, as a multiple of the network's own.
        start: from which distribution the weights start.

    Raises:
        TombolaError: if the inputs are no images, or smaller than 2×2.
    """
    channels, *image_sizes = image_sides(f"vgg{depth}", input_shape, 2)
    side = min(image_sizes)
    convolutions: list[nn.Module] = []
    for number, stage in enumerate(STAGES[depth]):
        if number and side >= 2:
            convolutions.append(nn.MaxPool2d(2))
            side //= 2
        for outputs in (scaled(size, width) for size in stage):
            convolutions += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            channels = outputs
    network = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    draw(network, start)
    return network
