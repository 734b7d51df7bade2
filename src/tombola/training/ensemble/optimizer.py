"""SGD, Adam and AdamW over the parameters of all members at once, each member with its own learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tombola.training.ensemble.layout import Layout
from tombola.training.own_optimizer import own
from tombola.training.recipe import Recipe
from tombola.training.task import Task

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""The defaults of torch's Adam and AdamW."""


def optimizer_obstacle(task: Task, recipe: Recipe) -> str:
    """Why networks cannot move together by this task and recipe; empty if they can."""
    for name in ("optimizer", "scheduler"):
        if own(task, name) is not None:
            return f"its task has {'an' if name == 'optimizer' else 'a'} {name} of its own"
    if recipe.optimizer not in ("sgd", "adam", "adamw"):
        return f"its optimizer is {recipe.optimizer}; networks together train with sgd, adam or adamw"
    said = {
        "sets options of its optimizer": recipe.options,
        "clips gradients": recipe.clip or recipe.clip_value,
        "accumulates gradients": recipe.accumulate > 1,
        "averages weights": recipe.ema,
        "takes HAM's steps": recipe.ham_alpha or recipe.ham_beta,
    }
    return next((f"its recipe {what}" for what, holds in said.items() if holds), "")


class Rates:
    """The learning rates of all members.

    Args:
        recipes: one a member.
        steps_per_epoch: optimizer steps in an epoch.
        layout: of the buffer of values.
        device: where members train.
    """

    def __init__(self, recipes: Sequence[Recipe], steps_per_epoch: int, layout: Layout, device: torch.device) -> None:
        self._distinct = list(dict.fromkeys(recipes))
        self._which = torch.tensor([self._distinct.index(recipe) for recipe in recipes], device=device)
        self._steps_per_epoch, self._layout = steps_per_epoch, layout
        self._last: tuple[float, ...] = ()
        self._spread: float | Tensor = 0.0

    def at(self, step: int) -> float | Tensor:
        """The learning rate of a step: one number if all members agree, else a buffer with one at each position."""
        rates = tuple(recipe.lr_at(step, self._steps_per_epoch) for recipe in self._distinct)
        if rates != self._last:  # spreading them takes a pass over all values
            self._last, of_members = rates, torch.tensor(rates, device=self._which.device)[self._which]
            self._spread = rates[0] if len(set(rates)) == 1 else self._layout.spread(of_members)
        return self._spread


class Optimizer:
    """The optimizer of `Recipe.make_optimizer`, for members whose recipes differ in the learning rate alone.

    Args:
        recipe: one member's.
        values: the buffer of all values.
        grads: the buffer of all gradients.
        moving: int32, all bits 1 where a weight moves and all bits 0 where it is dead or held; None if all move.
    """

    def __init__(self, recipe: Recipe, values: Tensor, grads: Tensor, moving: Tensor | None) -> None:
        self._recipe, self._values, self._grads, self._moving = recipe, values, grads, moving
        count = int(recipe.momentum > 0) if recipe.optimizer == "sgd" else 2
        self.states = [torch.zeros_like(values) for _ in range(count)]
        self._scratch = torch.empty_like(values if recipe.optimizer != "sgd" or recipe.nesterov else values[:0])

    def step(self, rate: float | Tensor, count: int) -> None:
        """Move all values along the gradients in the buffer, which this overwrites.

        Args:
            rate: one number, or one at each position.
            count: steps so far, this one among them.
        """
        recipe, values, grads = self._recipe, self._values, self._grads
        if recipe.weight_decay and recipe.optimizer != "adamw":
            grads.add_(values, alpha=recipe.weight_decay)
        self._zero_still(grads)
        if recipe.optimizer == "sgd":
            self._sgd(rate)
        else:
            if recipe.weight_decay and recipe.optimizer == "adamw":
                decay = self._scratch.copy_(values)
                self._zero_still(decay)
                _subtract(values, decay, rate, recipe.weight_decay)
            self._adam(rate, count)

    def _zero_still(self, tensor: Tensor) -> None:
        """Zero a buffer where weights do not move; by bits and not by product, since NaN · 0 is NaN."""
        if self._moving is not None:
            tensor.view(torch.int32).bitwise_and_(self._moving)

    def _sgd(self, rate: float | Tensor) -> None:
        direction = self._grads
        if self.states:
            velocity = self.states[0].mul_(self._recipe.momentum).add_(direction)
            if self._recipe.nesterov:
                direction = torch.add(direction, velocity, alpha=self._recipe.momentum, out=self._scratch)
            else:
                direction = velocity
        _subtract(self._values, direction, rate)

    def _adam(self, rate: float | Tensor, count: int) -> None:
        first, second = self.states
        first.lerp_(self._grads, 1 - BETA1)
        second.mul_(BETA2).addcmul_(self._grads, self._grads, value=1 - BETA2)
        size = torch.sqrt(second, out=self._scratch).div_(math.sqrt(1 - BETA2**count)).add_(EPSILON)
        _subtract(self._values, torch.div(first, size, out=size), rate, 1 / (1 - BETA1**count))


def _subtract(values: Tensor, direction: Tensor, rate: float | Tensor, factor: float = 1.0) -> None:
    if isinstance(rate, Tensor):
        values.addcmul_(direction, rate, value=-factor)
    else:
        values.add_(direction, alpha=-rate * factor)
