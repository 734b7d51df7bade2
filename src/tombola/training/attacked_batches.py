"""Attacks the inputs of a network that trains, or that is scored."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tombola.scores import Batch, Forward, batch_size
from tombola.tickets import Mask, attach, device_of
from tombola.training.adversarial_task import adversary_of
from tombola.training.attacks import Attack
from tombola.training.auto_attack import Apgd
from tombola.training.batches import move
from tombola.training.lengths import length_or_none
from tombola.training.loaders import pairs_of
from tombola.training.recipe import Recipe, autocast
from tombola.training.task import Task


class Attacker:
    """Attacks the inputs of a network that trains.

    Args:
        task: gives the adversary, the forward pass and the loss.
        network: the network.
        recipe: gives the precision.
        attack: another one than the task's own.
        forward: in place of the task's.
    """

    def __init__(
        self,
        task: Task,
        network: Any,
        recipe: Recipe,
        attack: Attack | Apgd | None = None,
        forward: Forward | None = None,
    ) -> None:
        adversary = adversary_of(task)
        assert adversary is not None
        self._adversary, self._attack = adversary, attack or adversary.attack
        self._task, self._module, self._recipe = task, network, recipe
        self._forward = forward or task.forward

    @property
    def passes(self) -> int:
        """How many forward and backward passes an attack takes."""
        return self._attack.passes

    def __call__(self, inputs: Tensor, targets: Any) -> Tensor:
        """The attacked inputs; on the network's device."""
        low, high = self._adversary.bounds(inputs)
        precision = self._recipe.resolved_precision(inputs.device) if inputs.device.type != "meta" else "float32"

        def call(points: Tensor) -> Any:
            # Small gradients become 0 in fp16, which has no sign.
            with autocast(self._recipe, points.device) if precision == "bf16" else torch.enable_grad():
                return self._forward(self._module, points)

        return self._attack(self._module, call, inputs, targets, self._task.loss, low, high).detach()


def attacker(task: Task, network: Any, recipe: Recipe) -> Attacker | None:
    """What attacks the inputs of a network that trains on a task; None if the task is not adversarial."""
    return None if adversary_of(task) is None else Attacker(task, network, recipe)


@dataclass(frozen=True)
class AttackedBatches:
    """Batches whose inputs are attacked as they are read.

    Args:
        source: the batches.
        attacker: attacks them.
        device: where.
    """

    source: Iterable[Batch]
    attacker: Attacker
    device: torch.device

    def __len__(self) -> int:
        length = length_or_none(self.source)
        if length is None:
            raise TypeError("these batches have no length")
        return length

    def __iter__(self) -> Iterator[Batch]:
        for batch in pairs_of(self.source):
            inputs, targets = move(batch, self.device)
            yield self.attacker(inputs, targets), targets


def attacked_batches(
    task: Task, model: nn.Module, batches: Iterable[Batch], mask: Mask | None, forward: Forward
) -> Iterable[Batch]:
    """The batches that a score sees: those of an adversarial task are attacked against the network that is scored.

    Args:
        task: the task.
        model: the network.
        batches: of the task.
        mask: what of the network is alive; None for all.
        forward: calls it.
    """
    if adversary_of(task) is None:
        return batches
    network = copy.deepcopy(model)
    if mask is not None:
        attach(mask, network).detach()  # Attaching zeroes what is dead.
    recipe = replace(task.recipe, precision="float32")
    return AttackedBatches(batches, Attacker(task, network, recipe, forward=forward), device_of(model))


def samples_of(batch: Batch, most: int) -> Batch:
    """The first samples of a batch whose inputs are a tensor."""
    inputs, targets = batch
    return (inputs[:most], targets[:most]) if batch_size(batch) > most else (inputs, targets)
