"""A mask that changes while its network trains."""

from __future__ import annotations

from typing import Any

from tombola.tickets import Mask
from tombola.training import Observer, Recipe, State


def last_move(until: float, recipe: Recipe, steps_per_epoch: int) -> int:
    """The step after which a mask stays that changes for this share of training."""
    return round(until * recipe.epochs * steps_per_epoch)


class MovingMask(Observer):
    """Holds the mask of a training between its changes, and over a kill."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    def epoch_begin(self, state: State) -> None:
        if self.mask != state.attached.mask:
            state.attached.exchange(self.mask)

    def move(self, mask: Mask, state: State) -> None:
        self.mask = mask
        state.attached.exchange(mask)

    def state_dict(self) -> dict[str, Any]:
        return {"mask": dict(self.mask)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mask = Mask.of(state["mask"])
