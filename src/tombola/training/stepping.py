"""From gradients to a step: learning rates, loss scaling, clipping, the optimizer, the average of weights."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from tombola.errors import TombolaError
from tombola.nested import leaves_of
from tombola.tickets import Handle, device_of
from tombola.training.averaging import Average
from tombola.training.memory import states_known
from tombola.training.own_optimizer import (
    ByEpoch,
    beside_state_dict,
    check_kept,
    make_own_optimizer,
    make_own_scheduler,
    own,
    put_beside,
)
from tombola.training.recipe import Recipe
from tombola.training.task import Task

T = TypeVar("T")


class WeightStepper:
    """Makes a training's optimizer steps, by the recipe and by what the task has of its own.

    Args:
        task: may have an optimizer and a scheduler of its own.
        model: the network, on its device.
        recipe: how it trains.
        steps_per_epoch: optimizer steps in an epoch.

    Raises:
        TombolaError: if the task's own optimizer or scheduler is none, or the recipe cannot be on this device.
    """

    def __init__(self, task: Task, model: nn.Module, recipe: Recipe, steps_per_epoch: int) -> None:
        self._task, self._model, self._recipe, self._steps_per_epoch = task, model, recipe, steps_per_epoch
        self.optimizer, self._rates = _optimizer_of(task, model, recipe)
        self._moved = [p for group in self.optimizer.param_groups for p in group["params"]]
        moved = set(self._moved)
        self._unmoved = [p for p in model.parameters() if p.requires_grad and p not in moved]
        self.device = device_of(model)
        fp16 = recipe.resolved_precision(self.device) == "fp16"
        self._scaler = torch.amp.GradScaler(self.device.type) if fp16 else None
        self._average: Average | None = None
        self._scheduler, self._by_epoch = self._own_scheduler()

    @property
    def state_bytes(self) -> int:
        """Bytes that a step needs beside those that `step_memory` counts: of the average, and of optimizer state of
        which only a step shows how large it is.
        """
        states = {} if states_known(self._task, self._recipe) is not None else self.optimizer.state
        kept = [leaf for leaf in leaves_of(list(states.values())) if isinstance(leaf, Tensor) and leaf.ndim]
        return sum(tensor.nbytes for tensor in (*kept, *(self._average.values.values() if self._average else ())))

    def follow(self, attached: Handle) -> None:
        """Average from here on, if the recipe asks for it; attached: the mask that the network keeps to."""
        if self._recipe.ema:
            self._average = Average(self._model, attached, self._recipe.ema)

    def zero_grad(self) -> None:
        """Forget the gradients, also of parameters that the optimizer does not move."""
        self.optimizer.zero_grad()
        for parameter in self._unmoved:
            parameter.grad = None

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss whose gradients are taken."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def unscale(self) -> bool:
        """Bring the gradients to their own size; False if they overflowed, so that this step changes nothing."""
        if self._scaler is None:
            return True
        self._scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self._moved if p.grad is not None]
        return bool(nn.utils.get_total_norm(gradients).isfinite())

    def step(self, step: int) -> float:
        """Move the weights along their gradients; step: counted from 0 over the recipe's whole schedule.

        Returns:
            The learning rate, of the first group of parameters.
        """
        if self._scheduler is None:
            rate = self._recipe.lr_at(step, self._steps_per_epoch)
            for group, share in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * share
        lr = self.optimizer.param_groups[0]["lr"]
        if self._recipe.clip:
            nn.utils.clip_grad_norm_(self._moved, self._recipe.clip)
        if self._recipe.clip_value:
            nn.utils.clip_grad_value_(self._moved, self._recipe.clip_value)
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        if self._average is not None:
            self._average.update()
        if self._scheduler is not None and not self._by_epoch:
            self._move_on()
        return lr

    def epoch_end(self, validation_loss: float | None) -> None:
        """After an epoch's validation, whose loss this is; None without validation samples."""
        if self._scheduler is not None and self._by_epoch:
            self._move_on(validation_loss)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the network has the averaged values, if the recipe averages."""
        return nullcontext() if self._average is None else self._average.in_place()

    def finish(self) -> None:
        """Leave the averaged values in the network, if the recipe averages."""
        if self._average is not None:
            self._average.put()

    def state_dict(self) -> dict[str, Any]:
        """All that a killed training needs to go on, beside the optimizer's own state."""
        parts = {"scheduler": self._scheduler, "scaler": self._scaler, "average": self._average}
        kept: dict[str, Any] = {name: part.state_dict() for name, part in parts.items() if part is not None}
        if own(self._task, "optimizer") is not None:
            check_kept("optimizer", self.optimizer.state_dict())
            kept["beside"] = beside_state_dict(self.optimizer)
        return kept

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        parts = {"scheduler": self._scheduler, "scaler": self._scaler, "average": self._average}
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(state[name])
        put_beside(self.optimizer, state.get("beside", {}))

    def _own_scheduler(self) -> tuple[LRScheduler | None, bool]:
        """The task's scheduler at the step where training begins, and whether it moves on by epochs."""
        if (factory := own(self._task, "scheduler")) is None:
            return None, False
        by_epoch = isinstance(factory, ByEpoch)
        epochs, steps = self._recipe.epochs, self._steps_per_epoch
        scheduler = make_own_scheduler(factory, self.optimizer, epochs if by_epoch else epochs * steps)
        if isinstance(scheduler, ReduceLROnPlateau):
            if not any(True for _ in self._task.batches("validation", 0, 0)):
                raise TombolaError(
                    "ReduceLROnPlateau follows the loss on the validation split, which is empty; give one"
                )
            return scheduler, True
        begin = self._recipe.begin(steps)
        with warnings.catch_warnings():  # Torch would have an optimizer step before each of these.
            warnings.simplefilter("ignore")
            for _ in range(begin // steps if by_epoch else begin):
                scheduler.step()
        return scheduler, by_epoch

    def _move_on(self, validation_loss: float | None = None) -> None:
        assert self._scheduler is not None
        if isinstance(self._scheduler, ReduceLROnPlateau):
            assert validation_loss is not None
            self._scheduler.step(validation_loss)
        elif self._scaler is None:
            self._scheduler.step()
        else:
            with warnings.catch_warnings():  # Torch warns if the first step overflowed, and so was left out.
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                self._scheduler.step()


def _optimizer_of(task: Task, model: nn.Module, recipe: Recipe) -> tuple[Optimizer, list[float]]:
    """The optimizer, and what each group's learning rate is, as a multiple of the recipe's."""
    factory = own(task, "optimizer")
    if factory is None:
        optimizer = recipe.make_optimizer(model.parameters())
        return optimizer, [1.0] * len(optimizer.param_groups)
    usual = task.recipe.lr
    if not usual:
        raise TombolaError(
            "the recipe's lr is 0, and the task's own optimizer follows the recipe's schedule in shares of it; give "
            "any lr above 0"
        )
    optimizer = recipe.with_ham(make_own_optimizer(factory, model))
    rates = [float(group["lr"]) / usual for group in optimizer.param_groups]
    for group in optimizer.param_groups:  # What a ticket prescribes counts in shares of the task's recipe.
        group["lr"] = float(group["lr"]) * (recipe.lr / usual)
    return optimizer, rates


def grouped(batches: Iterable[T], size: int) -> Generator[list[T]]:
    """The batches of each optimizer step; the last step of a pass may have fewer.

    Examples:
        >>> list(grouped(range(5), 2))
        [[0, 1], [2, 3], [4]]
    """
    left = iter(batches)
    while group := list(islice(left, size)):
        yield group
