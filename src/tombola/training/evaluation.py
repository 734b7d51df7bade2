"""Measuring a network on a split."""

from __future__ import annotations

import math

import torch
from torch import nn

from tombola.scores import batch_size
from tombola.structure import in_mode
from tombola.tickets import device_of, recomputable
from tombola.training.batches import move
from tombola.training.finite_data import say_unfinite
from tombola.training.loaders import pairs_of
from tombola.training.memory_format import channels_last
from tombola.training.metrics import Tally
from tombola.training.placement import bring_along, placed
from tombola.training.recipe import Recipe, autocast
from tombola.training.task import Split, Task, metric_of
from tombola.training.torch_losses import told


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, split: Split, recipe: Recipe) -> tuple[float, float, int]:
    """Measure a model on a split, in evaluation mode and in the recipe's precision; modes are restored.

    Args:
        task: gives batches, forward pass, loss and metric.
        model: the network, on its device.
        split: "validation" or "test".
        recipe: gives precision and memory layout.

    Returns:
        Mean metric, mean loss and number of samples; zeros for an empty split.

    Raises:
        TombolaError: if metric or loss are no finite numbers, and the data hold NaN.
    """
    device = device_of(model)
    bring_along(task, device)
    layout: bool | None = None
    # Summed on the device, which is waited for once at the end.
    loss, tally, count = torch.zeros((), device=device), Tally(metric_of(task), device), 0
    with recomputable(), in_mode(model, "eval"):
        for batch in placed(pairs_of(task.batches(split, 0, 0)), device):
            layout = channels_last(task, model, recipe, batch) if layout is None else layout
            inputs, targets = move(batch, device, layout)
            with autocast(recipe, device):
                outputs = task.forward(model, inputs)
                size = batch_size(batch)
                loss = loss + told(task.loss)(outputs, targets).float() * size
                tally.add(outputs, targets, size)
            count += size
    measured = tally.value(count), float(loss) / max(count, 1)
    if not all(map(math.isfinite, measured)):
        say_unfinite(task.batches(split, 0, 0), split, *measured)
    return *measured, count
