"""Networks with every wiring that channels can have: joined, grouped, gated, shifted; and small ones of the zoo."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tombola import zoo
from tombola.zoo.resnet import ResNet
from tombola.zoo.vit import VisionTransformer

SMALL = {"lenet-300-100": (20,), "lenet5": (1, 16, 16)}


class Concatenated(nn.Module):
    """A dense block: later layers read the outputs of earlier ones side by side, under one norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(10)
        self.last = nn.Linear(10, 5)

    def forward(self, x):
        first = F.relu(self.first(x))
        both = F.relu(self.norm(torch.cat([first, self.second(first)], 1)))
        return self.last(F.adaptive_avg_pool2d(both, 1).flatten(1))


class Separable(nn.Module):
    """A depthwise convolution between pointwise ones, and a gate on channels."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(3, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.depth_norm = nn.BatchNorm2d(8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.out = nn.Conv2d(8, 4, 1)
        self.last = nn.Linear(4, 5)

    def forward(self, x):
        x = F.silu(self.norm(self.into(x)))
        x = F.hardswish(self.depth_norm(self.depth(x)))
        x = x * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        return self.last(self.out(x).mean((2, 3)))


class Grouped(nn.Module):
    """Grouped convolutions, norms over groups of channels and over all, and a convolution that enlarges the image."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(4, 8)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.wide = nn.Linear(6, 9)
        self.layer_norm = nn.LayerNorm(9)
        self.last = nn.Linear(9, 5)

    def forward(self, x):
        x = self.up(F.relu(self.grouped(F.relu(self.norm(self.into(x))))))
        return self.last(F.gelu(self.layer_norm(self.wide(x.amax((2, 3))))))


class Shifted(nn.Module):
    """A stream to which the network's input is added, and whose channels an operation without a rule rolls round."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.inner = nn.Conv2d(3, 7, 3, padding=1)
        self.second = nn.Conv2d(7, 6, 3, padding=1)
        self.last = nn.Linear(6, 5)

    def forward(self, x):
        x = self.first(x) + x
        return self.last(self.second(F.relu(self.inner(F.relu(x)))).roll(1, 1).mean((2, 3)))


class Gated(nn.Module):
    """One channel that multiplies all others, a slice of channels, and means over an axis counted from the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 1, 1)
        self.second = nn.Conv2d(8, 6, 1)
        self.third = nn.Conv1d(4, 7, 1)
        self.last = nn.Linear(7, 5)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = self.second(x * torch.sigmoid(self.gate(x)))[:, 1:5]
        return self.last(F.relu(self.third(x.mean(-1))).mean(-1))


def short_network() -> nn.Module:
    """For toy tasks: a convolution with batch norm, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(64, 5),
    )


def short_resnet(blocks: int = 3) -> nn.Module:
    """For toy tasks: two stages of so many residual blocks, 4 and 8 channels wide."""
    return ResNet("basic", 4, [(4, blocks), (8, blocks)], "A", (1, 8, 8), 5)


def uneven_resnet() -> nn.Module:
    """For toy tasks: a stage of one residual block and one of two, 4 and 8 channels wide."""
    return ResNet("basic", 4, [(4, 1), (8, 2)], "A", (1, 8, 8), 5)


def short_transformer(layers: int = 2) -> nn.Module:
    """For toy tasks: so many layers of two heads."""
    return VisionTransformer((1, 8, 8), 5, heads=2, depth=layers)


MADE_UP = {network.__name__: network for network in (Concatenated, Separable, Grouped, Shifted, Gated)}


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A network in float64 and inputs for it; the norms' weights and statistics are random, so that none is neutral."""
    torch.manual_seed(0)
    shape = SMALL.get(name, (3, 16, 16))
    model = MADE_UP[name]() if name in MADE_UP else zoo.model(name, shape, 5)()
    for module in model.modules():
        if isinstance(getattr(module, "running_mean", None), torch.Tensor):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
        if type(module).__name__.endswith("Norm2d") or isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return model.double(), torch.randn(3, *shape, dtype=torch.float64)
