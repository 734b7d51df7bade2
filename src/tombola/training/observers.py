"""Observers: what looks on while the loop trains, and may ask it to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.scores import Batches, Loss, Score, Scores, TrainingScore, View, needs_training
from tombola.tickets import Handle, tensors_of
from tombola.training.cost import Cost
from tombola.training.recipe import Recipe
from tombola.training.step import Step


@dataclass
class State:
    """Where the loop is: `step` counts optimizer steps and `epoch` passes, both over the recipe's whole schedule.

    attached: the mask that training keeps to, which an observer may exchange for another.
    """

    model: nn.Module
    optimizer: Optimizer
    recipe: Recipe
    steps_per_epoch: int
    step: int
    epoch: int
    attached: Handle
    history: list[dict[str, float]] = field(default_factory=list)


class Observer:
    """Override what you need. `state_dict` and `load_state_dict` carry it over a kill.

    spent: the samples and FLOPs that it computes itself, for the run's ledger; its seconds are the training's.
    """

    spent: Cost = Cost()

    def epoch_begin(self, state: State) -> None:
        """Before the first batch of an epoch."""

    def wants_dense_gradients(self, state: State) -> bool:
        """Whether the coming backward shall leave the gradients of dead weights too."""
        return False

    def before_step(self, state: State) -> None:
        """After backward, before the optimizer's step."""

    def after_step(self, state: State) -> None:
        """After the optimizer's step; `state.step` counts it already."""

    def epoch_end(self, state: State) -> bool | None:
        """After an epoch and its validation; True asks the loop to stop."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return


class Snapshot(Observer):
    """Keeps all parameters and buffers as they are at one point in training, detached and never written to."""

    def __init__(self, at: Step) -> None:
        self.at = at
        self.epochs_spent = 0.0
        self._values: dict[str, Tensor] = {}

    @property
    def taken(self) -> dict[str, Tensor]:
        """The values; TombolaError if training never came to that point."""
        if not self._values:
            raise TombolaError(
                f"training ended before {self.at}, so there is nothing to rewind to; choose an earlier step"
            )
        return self._values

    def epoch_begin(self, state: State) -> None:
        self._take_if_due(state)

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
    """Ends training after so many epochs of the schedule."""

    epochs: int

    def epoch_end(self, state: State) -> bool:
        return state.epoch >= self.epochs


class GatheredScores(Observer):
    """What a score gathers of the gradients of some parameters, step by step and on their device.

    Called as a score once the training has ended, it gives that score.
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
    """The observer that a score needs in a training, if it needs one."""
    return GatheredScores(score, parameters) if needs_training(score) else None
