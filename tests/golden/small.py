"""Small networks and tasks in double precision whose every number comes from integers, the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import world
from torch import Tensor, nn

import tombola as tb

SHAPE, CLASSES = (1, 8, 8), 5


def data() -> dict[str, tuple[Tensor, Tensor]]:
    """Five classes of noisy 8×8 images: 32 to train on, 8 each to validate and to test on."""
    rng = np.random.default_rng(0)
    targets = np.arange(48) % CLASSES
    inputs = 2 * rng.random((CLASSES, *SHAPE))[targets] + 2 * rng.random((48, *SHAPE)) - 2
    pairs = torch.from_numpy(inputs), torch.from_numpy(targets)
    ends = {"train": slice(32), "validation": slice(32, 40), "test": slice(40, 48)}
    return {split: (pairs[0][own], pairs[1][own]) for split, own in ends.items()}


@torch.no_grad()
def drawn(build: Callable[[], nn.Module]) -> nn.Module:
    """A model in double precision, uniform numbers from NumPy in place of its own: those differ between processors."""
    model = build().double()
    rng = np.random.default_rng(int(torch.randint(2**31, ())))
    for name, parameter in model.named_parameters():
        numbers = torch.from_numpy(rng.random(tuple(parameter.shape)))
        if parameter.ndim > 1:
            deviation = math.sqrt(6 / math.prod(parameter.shape[1:]))
            parameter.copy_((2 * numbers - 1) * deviation)
        else:
            parameter.copy_(0.5 + numbers if name.endswith("weight") else 0.2 * numbers - 0.1)
    return model


def mlp_itself() -> nn.Module:
    return world.zoo_model("lenet-300-100", SHAPE, CLASSES, 0.04)()


def resnet_itself() -> nn.Module:
    """Two stages of three blocks, of 4 and 8 channels."""
    model: Any = world.zoo_model("resnet20", SHAPE, CLASSES, 1 / 4)()
    del model.layer3
    model.fc = nn.Linear(8, CLASSES)
    return model


def vit_itself() -> nn.Module:
    """Two layers of two heads of 16."""
    model: Any = world.zoo_model("vit-tiny", SHAPE, CLASSES, 1 / 3)()
    model.layers = model.layers[:2]
    return model


def two_layer_itself() -> nn.Module:
    return world.zoo_model("two-layer", SHAPE, CLASSES, 0.02)()


mlp, resnet, vit, two_layer = (partial(drawn, own) for own in (mlp_itself, resnet_itself, vit_itself, two_layer_itself))
NETWORKS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "resnet": resnet, "vit": vit, "two-layer": two_layer}

RECIPE = tb.Recipe(epochs=2, batch=16, lr=0.05, precision="float32")


is_trial = getattr(tb.training, "is_trial", lambda: False)
"""Whether a network is called only to see what it can do; a tree of before had no such calls."""


class Heard:
    """Cross-entropy that notes the first three values that it gives for real numbers."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def __call__(self, outputs: Tensor, targets: Tensor, **options: Any) -> Tensor:
        value = F.cross_entropy(outputs, targets, **options)
        # A look at the first batch, and a trial of the memory format, are no part of a search.
        if len(self.values) < 3 and not value.is_meta and not is_trial():
            self.values.append(float(value.detach()))
        return value


def task(network: str, loss: Any = F.cross_entropy) -> tb.SupervisedTask:
    """What a small network learns."""
    return tb.SupervisedTask(NETWORKS[network], data(), loss=loss, recipe=RECIPE)
