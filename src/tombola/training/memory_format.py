"""Channels last: whether a network's images and weights lie so in memory, decided once for a network of a task."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.nested import samples_in
from tombola.scores import Batch
from tombola.tickets import device_of, recomputable
from tombola.training.batches import move, pick
from tombola.training.cost import modules_of, remembered
from tombola.training.randomness import own_randomness
from tombola.training.recipe import Recipe, autocast
from tombola.training.task import Task

_trying = ContextVar("trying", default=False)
SAMPLES = 2
"""Samples of the pass that shows whether a network can be so: batch norm cannot train on a single one."""


def channels_last(task: Task, model: nn.Module, recipe: Recipe, batch: Batch) -> bool:
    """Whether images and weights of a network shall lie channels last.

    Where the recipe leaves it open, and the network has convolutions for which it pays, one forward and backward pass
    of a copy, and one in evaluation, show whether the network can be so; the answer is remembered.

    Args:
        task: gives forward pass and loss.
        model: the network; it stays as it is.
        recipe: says whether it is wanted.
        batch: inputs and targets, of which a few samples are used.

    Raises:
        TombolaError: if the recipe asks for it and the network cannot be so.
    """
    if not recipe.wants_channels_last(model):
        return False
    known, key = remembered(task), ("channels last", recipe.resolved_precision(device_of(model)), modules_of(model))
    if key not in known:
        known[key] = _obstacle(task, model, recipe, batch)
    obstacle = known[key]
    if obstacle and recipe.channels_last == "on":
        raise TombolaError(f"the network cannot be channels last ({obstacle}); give channels_last='auto' or 'off'")
    return not obstacle


def is_trial() -> bool:
    """Whether a network is called only to see what it can do, which is no part of a run's cost."""
    return _trying.get()


@contextmanager
def trial() -> Generator[None]:
    """Inside, a network is called only to see what it can do."""
    before = _trying.set(True)
    try:
        with recomputable():
            yield
    finally:
        _trying.reset(before)


def _obstacle(task: Task, model: nn.Module, recipe: Recipe, batch: Batch) -> str:
    """Why a network cannot be channels last; empty if it can."""
    for few in (_few(batch), batch):
        why = _failure(task, model, recipe, few, True)
        if not why:
            return ""
        if not _failure(task, model, recipe, few, False):
            return why
    return ""  # it fails either way: let it fail where it is used, with all that it says


def _few(batch: Batch) -> Batch:
    """A few samples of a batch; the whole one if none can be taken out."""
    try:
        few: Any = pick(tuple(batch), slice(SAMPLES))
    except (TombolaError, IndexError):
        return batch
    return few if samples_in(few[0]) == samples_in(few[1]) else batch


def _failure(task: Task, model: nn.Module, recipe: Recipe, batch: Batch, last: bool) -> str:
    """How a pass of a copy fails, forward and backward and in evaluation; empty if it does not."""
    device, passed = device_of(model), list[str]()
    # Dropout draws, and the caller's state stays as it is.
    with own_randomness(device, 0), torch.enable_grad(), trial():
        try:
            twin = copy.deepcopy(model).train()
            for name, module in twin.named_modules():
                module.register_forward_hook(lambda *_, name=name: passed.append(name))
            if last:
                twin.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
            inputs, targets = move(batch, device, last)
            with autocast(recipe, device):
                loss = task.loss(task.forward(twin, inputs), targets)
            loss.backward()
            with torch.no_grad(), autocast(recipe, device):
                task.forward(twin.eval(), inputs)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return f"after '{passed[-1]}': {reason}" if passed else reason
    return ""
