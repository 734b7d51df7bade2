"""Observers: what looks on while the loop trains, and may ask it to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.scores import Batches, Loss, Score, Scores, TrainingScore, View, check_real, needs_training
from tombola.tickets import Handle, tensors_of
from tombola.training.cost import Cost
from tombola.training.recipe import Recipe
from tombola.training.step import Step


@dataclass
class State:
    """Where the loop is.

    Args:
        model: the network in training.
        optimizer: its optimizer.
        recipe: how it trains.
        steps_per_epoch: optimizer steps in a full epoch.
        step: optimizer steps so far, counted over the recipe's whole schedule.
        epoch: epochs so far, counted over the recipe's whole schedule.
        attached: the mask that training keeps to; an observer may exchange it.
        history: one row for each epoch that ended.
        averaged: inside what this gives, the network has the averaged weights, if the recipe averages.
    """

    model: nn.Module
    optimizer: Optimizer
    recipe: Recipe
    steps_per_epoch: int
    step: int
    epoch: int
    attached: Handle
    history: list[dict[str, float]] = field(default_factory=list)
    averaged: Callable[[], AbstractContextManager[None]] = nullcontext


class Observer:
    """Looks on while the loop trains: override what you need.

    `state_dict` and `load_state_dict` carry an observer over a kill. `spent` says what it computes itself, in samples
    and FLOPs, for the run's ledger; its seconds are among the training's.

    Examples:
        >>> class Counter(Observer):
        ...     def epoch_end(self, state):
        ...         print(f"after epoch {state.epoch} at step {state.step}")
        >>> from tombola.testing import toy_task
        >>> from tombola.training import Run
        >>> task = toy_task(epochs=2)
        >>> fitted = Run().stage("train", task, task.build(seed=0), observers=[Counter()])
        after epoch 1 at step 6
        after epoch 2 at step 12
    """

    spent: Cost = Cost()
    is_measuring: bool = False
    """Whether it computes only to measure, as validation does, which is no training in dense epochs."""

    def epoch_begin(self, state: State) -> None:
        """Before the first batch of an epoch."""

    def wants_dense_gradients(self, state: State) -> bool:
        """Whether the next backward pass shall leave the gradients of dead weights, which are zeroed otherwise."""
        return False

    def before_step(self, state: State) -> None:
        """After backward, before the optimizer's step."""

    def after_step(self, state: State) -> bool | None:
        """After the optimizer's step, which `state.step` already counts; True ends the training there, once all
        observers were told.
        """

    def epoch_end(self, state: State) -> bool | None:
        """After an epoch and its validation; True asks the loop to stop, once all observers were told."""

    def resumable(self, state: State) -> bool | None:
        """Whether a killed training can go on from the state of now: None says at the ends of epochs alone, as usual.

        True keeps a checkpoint after this step, if one is due; False none, even where an epoch ends.
        """

    def training_end(self, state: State) -> None:
        """After the last epoch, when the network has the values with which training leaves it."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return


class Snapshot(Observer):
    """Keeps a copy of all parameters and buffers at one point in training, to rewind to.

    Args:
        at: the point, as `Step.parse("500it")`.
    """

    def __init__(self, at: Step) -> None:
        self.at = at
        self.epochs_spent = 0.0
        self._values: dict[str, Tensor] = {}

    @property
    def taken(self) -> dict[str, Tensor]:
        """Parameters and buffers by name, on the CPU; TombolaError if training never came to that point."""
        if not self._values:
            raise TombolaError(
                f"training ended before {self.at}, so there is nothing to rewind to; choose an earlier step"
            )
        return self._values

    def epoch_begin(self, state: State) -> None:
        self._take_if_due(state)  # step 0 has no step before it

    def after_step(self, state: State) -> None:
        self._take_if_due(state)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self._values, "epochs_spent": self.epochs_spent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._values, self.epochs_spent = state["values"], state["epochs_spent"]

    def _take_if_due(self, state: State) -> None:
        if state.step == self.at.iterations(state.steps_per_epoch) and not self._values:
            self._values = {name: tensor.cpu().clone() for name, tensor in tensors_of(state.model).items()}
            self.epochs_spent = state.step / state.steps_per_epoch


@dataclass(frozen=True)
class Until(Observer):
    """Ends training after so many epochs of the schedule, while the schedule stays as long as it is.

    Args:
        epochs: after which the loop stops.
    """

    epochs: int

    def epoch_end(self, state: State) -> bool:
        return state.epoch >= self.epochs


class GatheredScores(Observer):
    """Gathers what a score needs of the gradients in training; called after the training, it gives that score.

    Args:
        score: says what it notes of a gradient, and how scores follow from that.
        parameters: those to score, by name.
    """

    def __init__(self, score: TrainingScore, parameters: Mapping[str, nn.Parameter]) -> None:
        self._gathered = {name: torch.zeros_like(p.detach(), dtype=torch.float32) for name, p in parameters.items()}
        self._score, self._parameters = score, dict(parameters)

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        return self._score.from_gathered(model, self._gathered, **view)

    @torch.no_grad()
    def before_step(self, state: State) -> None:
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                self._score.note(self._gathered[name], parameter.grad, parameter)

    def state_dict(self) -> dict[str, Any]:
        return {"gathered": self._gathered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, tensor in state["gathered"].items():
            self._gathered[name].copy_(tensor)


def gather_scores(score: Score, parameters: Mapping[str, nn.Parameter]) -> GatheredScores | None:
    """The observer that a score needs in a training.

    Args:
        score: any score.
        parameters: those to score, by name.

    Returns:
        The observer; None for a score that needs no training.
    """
    if not needs_training(score):
        return None
    check_real(parameters, f"the score '{score.name}'")
    return GatheredScores(score, parameters)
