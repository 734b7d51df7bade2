"""Changing a mask while its network trains: the smallest weights go, and as many grow elsewhere."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.moving_mask import MovingMask, last_move
from tombola.methods.score_freezing import SearchWarning
from tombola.tickets import Mask, TieWarning, parameters_of, select
from tombola.training import State, Step, mixed


@dataclass(frozen=True)
class Regrowth:
    """How the mask of a sparse training moves.

    Args:
        density: the share of weights to keep, above 0 and at most 1.
        grow: where weights come back: at the largest gradients of the dense network (`gradient`), or
            anywhere (`random`).
        every: the time between two updates of the mask, as "100it" or "1ep".
        share: the share of each layer's live weights that the first update drops; it falls to 0 as a cosine.
        until: the share of training after which the mask stays.
    """

    density: float = 0.1
    grow: Literal["gradient", "random"] = "gradient"
    every: str = "100it"
    share: float = 0.3
    until: float = 0.75

    def __post_init__(self) -> None:
        check_fields(self)
        if not Step.parse(self.every).count:
            raise TombolaError(f"every is {self.every}; give at least one step, as 100it or 1ep")
        for name in ("share", "until"):
            if not 0 < getattr(self, name) <= 1:
                raise TombolaError(f"{name} is {getattr(self, name)}; give a share above 0 and at most 1")


class MovingRegrowth(MovingMask):
    """Updates the mask during a training; an update takes the place of that step's optimizer step."""

    def __init__(self, settings: Regrowth, mask: Mask, seed: int) -> None:
        super().__init__(mask)
        self._settings = settings
        self._seed = seed

    def epoch_begin(self, state: State) -> None:
        super().epoch_begin(state)
        first_step, every = state.recipe.begin(state.steps_per_epoch), self._every(state)
        if state.step == first_step and every * max(1, math.ceil(first_step / every)) >= self._end(state):
            steps_left = max(0, self._end(state) - first_step)
            warnings.warn(
                f"the mask stays as it was drawn: {steps_left} steps of training can change it, and every "
                f"is {self._settings.every}; shorten it, or train longer",
                SearchWarning,
                stacklevel=2,
            )

    def wants_dense_gradients(self, state: State) -> bool:
        return self._settings.grow == "gradient" and self._due(state)

    def before_step(self, state: State) -> None:
        if not self._due(state):
            return
        parameters = parameters_of(state.model)
        weights = {name: parameters[name] for name in self.mask}
        share = dropped_share(self._settings.share, state.step, self._end(state))
        counts = {
            name: _count_to_move(share, self.mask, name) if weight.grad is not None else 0
            for name, weight in weights.items()
        }
        self.move(move_mask(self.mask, weights, self._worth(weights, state.step), counts), state)
        state.optimizer.zero_grad()  # Without gradients, the step that follows changes nothing.

    def _worth(self, weights: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """How much each weight is worth growing; random numbers are a function of (seed, step)."""
        if self._settings.grow == "random":
            generator = torch.Generator().manual_seed(mixed(self._seed, step))
            return {name: torch.rand(weight.shape, generator=generator) for name, weight in weights.items()}
        return {name: torch.zeros(()).expand_as(w) if w.grad is None else w.grad.abs() for name, w in weights.items()}

    def _every(self, state: State) -> int:
        return Step.parse(self._settings.every).iterations(state.steps_per_epoch)

    def _end(self, state: State) -> int:
        return last_move(self._settings.until, state.recipe, state.steps_per_epoch)

    def _due(self, state: State) -> bool:
        return 0 < state.step < self._end(state) and state.step % self._every(state) == 0


def dropped_share(share: float, step: int, end: int) -> float:
    """The share of a layer's live weights that an update drops: share / 2 · (1 + cos(π · step / end)).

    Examples:
        >>> [round(dropped_share(0.3, step, 100), 3) for step in (0, 50, 100)]
        [0.3, 0.15, 0.0]
    """
    return share / 2 * (1 + math.cos(math.pi * step / end))


def move_mask(
    mask: Mask, weights: Mapping[str, Tensor], worth: Mapping[str, Tensor], moving: Mapping[str, int]
) -> Mask:
    """The mask without each layer's smallest live weights, and with as many of its most valuable dead ones.

    What is dropped cannot come back in the same update, so exactly that many weights change.

    Args:
        mask: the mask of now.
        weights: the parameters, by name.
        worth: how much each weight is worth growing, in the shapes of the weights; larger comes first.
        moving: how many weights of each layer go, and how many come.
    """
    if not any(moving.values()):
        return mask
    staying = {name: mask.kept(name) - count for name, count in moving.items()}
    magnitudes = {name: weight.detach().abs() for name, weight in weights.items()}
    return _best(magnitudes, staying, mask) | _best(worth, moving, ~mask)


def _best(scores: Mapping[str, Tensor], counts: Mapping[str, int], within: Mask) -> Mask:
    """The highest-scored weights, so many of each layer; gradients of 0 are frequent, so ties are not warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TieWarning)
        return select(scores, None, scope={n: c / within.bits[n].size for n, c in counts.items()}, within=within)


def _count_to_move(share: float, mask: Mask, name: str) -> int:
    """How many weights of a layer an update moves: the share rounded down, and no more than are dead."""
    return min(int(share * mask.kept(name)), mask.bits[name].size - mask.kept(name))
