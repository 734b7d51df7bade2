"""Observers: what looks on while the loop trains, and may ask it to stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.tickets import Handle, tensors_of
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
    """Override what you need. `state_dict` and `load_state_dict` carry it over a kill."""

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
