"""Residual networks for small images: He et al. (CVPR and ECCV 2016), Zagoruyko & Komodakis (BMVC 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tombola.zoo.input_shapes import Shape, image_sides, scaled
from tombola.zoo.starts import Start, draw

Shortcut = Literal["A", "projection"]
Kind = Literal["basic", "bottleneck", "pre-activation"]


class PaddedShortcut(nn.Module):
    """Option A (He et al., CVPR 2016): every `stride`-th pixel, and zeros for the new channels; without parameters.

    Args:
        inputs: how many channels go in.
        sources: for each output channel its input channel; None for zeros.
        stride: of the pixels.
    """

    def __init__(self, inputs: int, sources: Sequence[int | None], stride: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.sources = tuple(sources)
        self.stride = stride
        before = next((place for place, source in enumerate(self.sources) if source is not None), 0)
        after = len(self.sources) - before - inputs
        contiguous = self.sources == (*[None] * before, *range(inputs), *[None] * after)
        self._padding = (before, after) if contiguous else None
        # Channel `inputs` is the channel of zeros that `forward` appends.
        self._chosen = [inputs if source is None else source for source in self.sources]

    def kept(self, inputs: Sequence[int], outputs: Sequence[int]) -> PaddedShortcut:
        """The shortcut that is left between these input and output channels, given by their indices."""
        place = {channel: index for index, channel in enumerate(inputs)}
        sources = [self.sources[channel] for channel in outputs]
        return PaddedShortcut(len(inputs), [None if s is None else place.get(s) for s in sources], self.stride)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        if self._padding is not None:
            return F.pad(x, (0, 0, 0, 0, *self._padding))
        return F.pad(x, (0, 0, 0, 0, 0, 1))[:, self._chosen]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first 3×3 convolution; 2 halves the image.
        shortcut: what stands beside where the shape changes, "A" or "projection".
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut_between(inputs, outputs, stride, shortcut)

    @property
    def branch(self) -> tuple[str, ...]:
        """The modules whose output is added to the input, which is never negative; none where the shape changes."""
        return ("bn2",) if isinstance(self.shortcut, nn.Identity) else ()

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 1×1 convolution to a quarter of the channels, a 3×3 and a 1×1 back, and a shortcut.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first 3×3 convolution; 2 halves the image.
        shortcut: what stands beside where the shape changes, "A" or "projection".
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        narrow = max(1, outputs // 4)
        self.conv1 = nn.Conv2d(inputs, narrow, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.conv3 = nn.Conv2d(narrow, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut_between(inputs, outputs, stride, shortcut)

    @property
    def branch(self) -> tuple[str, ...]:
        """The modules whose output is added to the input, which is never negative; none where the shape changes."""
        return ("bn3",) if isinstance(self.shortcut, nn.Identity) else ()

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        inner = F.relu(self.bn2(self.conv2(inner)))
        return F.relu(self.bn3(self.conv3(inner)) + self.shortcut(x))


class PreActivationBlock(nn.Module):
    """Norm and ReLU before each of two 3×3 convolutions; a shortcut that changes the shape starts after the first two.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first 3×3 convolution; 2 halves the image.
        shortcut: what stands beside where the shape changes, "A" or "projection".
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = shortcut_between(inputs, outputs, stride, shortcut, normed=False)

    @property
    def branch(self) -> tuple[str, ...]:
        """The modules whose output is added to the input; none where the shortcut changes the shape."""
        return ("conv2",) if isinstance(self.shortcut, nn.Identity) else ()

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(active)
        return self.conv2(F.relu(self.bn2(self.conv1(active)))) + shortcut


BLOCKS: dict[Kind, type[nn.Module]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
    "pre-activation": PreActivationBlock,
}


class ResNet(nn.Module):
    """A 3×3 convolution as stem, stages of residual blocks, average pooling and a classifier.

    Each stage but the first halves the image.

    Args:
        kind: of the blocks, "basic", "bottleneck" or "pre-activation".
        stem: channels of the first convolution.
        stages: (channels, blocks) of each stage.
        shortcut: where the shape changes, "A" or "projection".
        input_shape: of one sample, (channels, height, width).
        classes: how many classes the network tells apart.
        width: channels, as a multiple of `stem` and `stages`.
        start: from which distribution the weights start.

    Raises:
        TombolaError: if the inputs are no images, or smaller than 4×4.
    """

    def __init__(
        self,
        kind: Kind,
        stem: int,
        stages: Sequence[tuple[int, int]],
        shortcut: Shortcut,
        input_shape: Shape,
        classes: int,
        width: float = 1.0,
        start: Start = "fan-in",
    ) -> None:
        super().__init__()
        channels, _, _ = image_sides("a residual network", input_shape, 4)
        sizes = [scaled(size, width) for size in (stem, *(channels for channels, _ in stages))]
        block = BLOCKS[kind]
        self.conv1 = nn.Conv2d(channels, sizes[0], 3, 1, 1, bias=False)
        self.bn1 = nn.Identity() if kind == "pre-activation" else nn.BatchNorm2d(sizes[0])
        for number, (before, after) in enumerate(pairwise(sizes), start=1):
            first = block(before, after, 1 if number == 1 else 2, shortcut)
            rest = (block(after, after, 1, shortcut) for _ in range(stages[number - 1][1] - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
        self.norm = nn.BatchNorm2d(sizes[-1]) if kind == "pre-activation" else nn.Identity()
        self.fc = nn.Linear(sizes[-1], classes)
        draw(self, start)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x) if isinstance(self.bn1, nn.Identity) else F.relu(self.bn1(self.conv1(x)))
        for name, stage in self.named_children():
            x = stage(x) if name.startswith("layer") else x
        x = x if isinstance(self.norm, nn.Identity) else F.relu(self.norm(x))
        return self.fc(x.mean((2, 3)))


def shortcut_between(inputs: int, outputs: int, stride: int, shortcut: Shortcut, *, normed: bool = True) -> nn.Module:
    """The shortcut from inputs to outputs of a block.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the block.
        shortcut: where the shape changes, "A" pads with zeros and "projection" is a 1×1 convolution.
        normed: whether batch norm follows the projection.

    Returns:
        The identity where the shape stays.
    """
    if (stride, inputs) == (1, outputs):
        return nn.Identity()
    if shortcut == "A":
        before = (outputs - inputs) // 2
        return PaddedShortcut(inputs, [*[None] * before, *range(inputs), *[None] * (outputs - inputs - before)], stride)
    projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(outputs)) if normed else projection


def small_resnet(
    depth: int,
    kind: Kind,
    shortcut: Shortcut,
    input_shape: Shape,
    classes: int,
    width: float = 1.0,
    start: Start = "fan-in",
) -> ResNet:
    """Three stages of 16, 32, 64 channels with (depth − 2) / 6 blocks each.

    ResNet-20 with option A has 268,336 convolution and linear weights on RGB images and ten classes, and 40.6 M
    multiply-adds at 32×32 (40.8 M with projections).

    Args:
        depth: layers, 6n + 2.
        kind: of the blocks.
        shortcut: where the shape changes.
        input_shape: of one sample, (channels, height, width).
        classes: how many classes the network tells apart.
        width: channels, as a multiple of the network's own.
        start: from which distribution the weights start.

    Examples:
        >>> network = small_resnet(20, "basic", "A", (3, 32, 32), 10)
        >>> sum(p.numel() for p in network.parameters() if p.ndim > 1)
        268336
    """
    stages = [(16 * 2**stage, (depth - 2) // 6) for stage in range(3)]
    return ResNet(kind, 16, stages, shortcut, input_shape, classes, width, start)


def large_resnet(
    kind: Kind,
    blocks: Sequence[int],
    expansion: int,
    input_shape: Shape,
    classes: int,
    width: float = 1.0,
    start: Start = "fan-in",
) -> ResNet:
    """The ImageNet networks' four stages of 64 to 512 channels, behind a stem for small images.

    Args:
        kind: of the blocks.
        blocks: how many in each stage.
        expansion: times the channels, 4 for bottlenecks.
        input_shape: of one sample, (channels, height, width).
        classes: how many classes the network tells apart.
        width: channels, as a multiple of the network's own.
        start: from which distribution the weights start.
    """
    stages = [(64 * 2**stage * expansion, count) for stage, count in enumerate(blocks)]
    return ResNet(kind, 64, stages, "projection", input_shape, classes, width, start)


def wide_resnet(
    depth: int, widen: int, input_shape: Shape, classes: int, width: float = 1.0, start: Start = "fan-in"
) -> ResNet:
    """WRN-depth-widen (Zagoruyko & Komodakis, BMVC 2016): three stages of (depth − 4) / 6 pre-activation blocks.

    Args:
        depth: layers, 6n + 4.
        widen: times the channels after the stem.
        input_shape: of one sample, (channels, height, width).
        classes: how many classes the network tells apart.
        width: channels, as a multiple of the network's own.
        start: from which distribution the weights start.
    """
    stages = [(16 * 2**stage * widen, (depth - 4) // 6) for stage in range(3)]
    return ResNet("pre-activation", 16, stages, "projection", input_shape, classes, width, start)
