"""A task so small that a check of every law takes a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tombola.training import Recipe, SupervisedTask


def toy_network() -> nn.Module:
    """Two convolutions with batch norm and a classifier: 4·9 + 6·4·9 + 5·96 = 732 prunable weights."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(96, 5),
    )


def toy_task(model: Callable[[], nn.Module] = toy_network, epochs: int = 2) -> SupervisedTask:
    """Five classes of noisy 8×8 images, 120 to train on and 60 to test; the same for every call.

    Args:
        model: builds a network from inputs (n, 1, 8, 8) to 5 outputs.
        epochs: of training, with six steps each.

    Examples:
        >>> inputs, targets = next(iter(toy_task().batches("train", 0, 0)))
        >>> inputs.shape, targets.shape
        (torch.Size([20, 1, 8, 8]), torch.Size([20]))
    """
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(5, 1, 8, 8, generator=generator)
    targets = torch.arange(180) % 5
    inputs = patterns[targets] + torch.randn(180, 1, 8, 8, generator=generator)
    data = {"train": (inputs[:120], targets[:120]), "test": (inputs[120:], targets[120:])}
    return SupervisedTask(model, data, recipe=Recipe(epochs=epochs, batch=20, lr=0.05, precision="float32"))


def recomputed(model: nn.Module, inputs: Any) -> Any:
    """A task's forward pass that keeps no activation: backward computes the whole network again."""
    return checkpoint(model, inputs, use_reentrant=False)
