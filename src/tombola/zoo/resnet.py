"""Residual networks for small images (He et al., CVPR 2016)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tombola.zoo.shapes import Shape, image_sides, scaled

Shortcut = Literal["A", "projection"]


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, and zeros for the channels that are new; no parameters."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.new_channels // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new_channels - before))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if (stride != 1 or inputs != outputs) and shortcut == "A":
            self.shortcut = PaddedShortcut(outputs - inputs, stride)
        elif stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3×3 stem, three stages of basic blocks with 16, 32, 64 channels, average pooling, a linear classifier.

    Depth is 6 · blocks + 2. ResNet-20 with option A has 268,336 convolution and linear weights on RGB images
    and ten classes, and 40.6 M multiply-adds at 32×32 (40.8 M with projections).
    """

    def __init__(self, blocks: int, shortcut: Shortcut, input_shape: Shape, classes: int, width: float = 1.0) -> None:
        super().__init__()
        channels, _, _ = image_sides(f"resnet{6 * blocks + 2}", input_shape, 4)
        inside = scaled(16, width)
        self.conv1 = nn.Conv2d(channels, inside, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        sizes = [inside, *(scaled(16 * 2**stage, width) for stage in range(3))]
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                BasicBlock(before, after, 1 if stage == 0 else 2, shortcut),
                *(BasicBlock(after, after, 1, shortcut) for _ in range(blocks - 1)),
            )
            for stage, (before, after) in enumerate(pairwise(sizes))
        )
        self.fc = nn.Linear(sizes[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))
