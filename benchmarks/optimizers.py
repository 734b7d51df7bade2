"""A training step by a task's own optimizer and schedule against one by the recipe's, and against one by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.optim.lr_scheduler import CosineAnnealingLR

import tombola as tb
from benchmarks.measure import Figure, Work, interleaved
from tombola import zoo
from tombola.training.stepping import WeightStepper

RECIPE = tb.Recipe(lr=0.01, weight_decay=0.0, precision="float32")
STEPS = 10_000
"""Of an epoch: more than are timed."""


def own(model: nn.Module) -> optim.Optimizer:
    return optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)


def falling(optimizer: optim.Optimizer, steps: int) -> CosineAnnealingLR:
    return CosineAnnealingLR(optimizer, steps)


def variants(batch: int) -> dict[str, Work]:
    """Training steps of the same network on the same batch."""
    data = torch.randn(batch, 1, 28, 28), torch.randint(0, 10, (batch,))
    usual = tb.SupervisedTask(zoo.model("lenet-300-100", (1, 28, 28), 10), {"train": data, "test": data}, recipe=RECIPE)
    tasks = {
        "recipe": usual,
        "own optimizer": replace(usual, optimizer=own),
        "own optimizer and schedule": replace(usual, optimizer=own, scheduler=falling),
        "clipped": replace(usual, recipe=replace(RECIPE, clip=1.0)),
        "averaged": replace(usual, recipe=replace(RECIPE, ema=0.999)),
    }
    return {"by hand": by_hand(usual)} | {name: step(task) for name, task in tasks.items()}


def step(task: tb.SupervisedTask) -> Work:
    """A step as the loop makes it, without its data and observers."""
    model = task.build(0)
    inputs, targets = task.data["train"]
    stepper, count = WeightStepper(task, model, task.recipe, STEPS), 0
    stepper.follow(tb.attach(tb.Mask({}), model))

    def work() -> None:
        nonlocal count
        stepper.zero_grad()
        stepper.scaled(F.cross_entropy(model(inputs), targets)).backward()
        stepper.unscale()
        stepper.step(count)
        count += 1

    return work


def by_hand(task: tb.SupervisedTask) -> Work:
    model = task.build(0)
    inputs, targets = task.data["train"]
    optimizer, count = own(model), 0

    def work() -> None:
        nonlocal count
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        for group in optimizer.param_groups:
            group["lr"] = RECIPE.lr_at(count, STEPS)
        optimizer.step()
        count += 1

    return work


def figures(batches: tuple[int, ...] = (8, 128), repeats: int = 1000) -> Iterator[Figure]:
    for batch in batches:
        times = interleaved(variants(batch), repeats)
        setup = f"lenet-300-100, batch {batch}, sgd"
        note = f"by the recipe {1e6 * times.seconds['recipe']:.0f} µs"
        yield times.figure(f"step by the recipe ÷ step by hand ({setup})", "recipe", "by hand", 1.03, note)
        for name in ("own optimizer", "own optimizer and schedule"):
            yield times.figure(f"step with {name} ÷ step by the recipe ({setup})", name, "recipe", 1.03)
        for name in ("clipped", "averaged"):
            yield times.figure(f"{name} step ÷ step by the recipe ({setup})", name, "recipe")
