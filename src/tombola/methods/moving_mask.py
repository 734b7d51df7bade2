"""A mask that changes while its network trains."""

from __future__ import annotations

from typing import Any

from tombola.tickets import Mask
from tombola.training import Observer, Recipe, State


def last_move(until: float, recipe: Recipe, steps_per_epoch: int) -> int:
    """The last step at which a mask changes that moves during this share of training."""
    return round(until * recipe.epochs * steps_per_epoch)


class MovingMask(Observer):
    """Holds the mask of a training between its changes, and keeps it in the checkpoint."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    def epoch_begin(self, state: State) -> None:
        if self.mask != state.attached.mask:  # After a kill, training is attached to the first mask again.
            state.attached.exchange(self.mask)

    def move(self, mask: Mask, state: State) -> None:
        """Train with another mask from now on."""
        self.mask = mask
        state.attached.exchange(mask)

    @property
    def removed(self) -> dict[str, tuple[int, ...]]:
        """The units that the mask removes, where they are more than single weights."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"mask": dict(self.mask)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mask = Mask.of(state["mask"])
