"""Watching masks settle while a network trains, and holding back what they drop."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.scores import Score
from tombola.structure import UnitMap, kept_share
from tombola.tickets import Mask, Scope, TieWarning, parameters_of
from tombola.training import Observer, State

MOMENTS = ("momentum_buffer", "exp_avg")
"""What optimizers call their running mean of gradients."""


@dataclass(frozen=True)
class ConvergenceRule:
    """When the units that a pruning would keep have settled, and what happens to the others.

    After each epoch the channels with the largest batch-norm scales |γ|, or the largest units of another kind by the
    size of their weights, up to the density and over all layers together, make a mask.
    epsilon: the masks have settled when the newest is nearer than this, in normalised Hamming distance, to each other
    one of the last `window` (rule `window`, as the paper's code), or when the last `window` distances from one to the
    next were (`consecutive`, as its text). untrained: whether the mask before training is one of them. penalty: times
    the sign of γ, added to its gradient (network slimming). truncation: the factor on the gradients of what the newest
    mask drops (WORM), which are a channel's γ and β, or all weights of a unit of another kind: once the mean distance
    was below epsilon + margin (`settled`), from the beginning (`always`), or the mean distance itself, each epoch anew
    (`distance`). momentum: scale the optimizer's running mean of these gradients as well, once an epoch. floor: units
    that each layer keeps at least.
    """

    density: float = 0.5
    epsilon: float = 0.1
    window: int = 5
    rule: Literal["window", "consecutive"] = "window"
    untrained: bool = True
    penalty: float = 0.0
    truncation: float = 1.0
    truncate: Literal["settled", "always", "distance"] = "settled"
    margin: float = 0.05
    momentum: bool = False
    scope: Scope = "global"
    floor: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if self.window < 2:
            raise TombolaError(f"the window is {self.window}; give at least 2 masks, to have a distance")
        for name in ("epsilon", "penalty", "truncation", "margin"):
            if not getattr(self, name) >= 0:
                raise TombolaError(f"{name} is {getattr(self, name)}; give a number of at least 0")
        if self.truncation > 1:
            raise TombolaError(f"the truncation is {self.truncation}; give a factor from 0 to 1 (1 truncates nothing)")


class MaskConvergence(Observer):
    """The masks of one network, epoch by epoch: of these units, by this score."""

    def __init__(self, settings: ConvergenceRule, model: nn.Module, units: UnitMap, score: Score) -> None:
        self.settings = settings
        self.masks: list[Mask] = []
        self.distances: list[float] = []
        self.factor = settings.truncation if settings.truncate == "always" else 1.0
        self._model = model
        self._units, self._score = units, score
        self._parameters = parameters_of(model)
        self._dropped: dict[str, Tensor] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TieWarning)  # Before training a norm's scales are all 1.
            first = self._choose()
            self._sizes = first.shapes
            self.names = list(units.expand(first, self._parameters))
            if settings.untrained:
                self.look()

    @property
    def kept(self) -> Mask:
        """The units that the newest mask keeps."""
        if not self.masks:
            raise TombolaError("no mask was taken yet; call epoch_end() after an epoch first")
        return self.masks[-1]

    @property
    def mask(self) -> Mask:
        """The newest mask, over the parameters that are watched."""
        return self._units.expand(self.kept, self._parameters)

    @property
    def full(self) -> bool:
        return len(self.distances) == self.settings.window - (self.settings.rule == "window")

    @property
    def settled(self) -> bool:
        return self.full and max(self.distances) < self.settings.epsilon

    def look(self, optimizer: Optimizer | None = None) -> bool:
        """Take the mask of this moment; True when the masks have settled."""
        own = self.settings
        kept = self._choose()
        if own.rule == "window":
            self.masks = [*self.masks, kept][-own.window :]
            filled = len(self.masks) == own.window
            self.distances = [kept.distance(other) for other in self.masks[:-1]] if filled else []
        else:
            self.distances = [*self.distances, *(kept.distance(other) for other in self.masks)][-own.window :]
            self.masks = [kept]
        self._renew_dropped()
        self._renew_factor()
        if own.momentum and optimizer is not None and self.factor != 1:
            self._scale_moments(optimizer)
        return self.settled

    def _choose(self) -> Mask:
        own = self.settings
        return self._units.choose(
            self._score(self._model),
            kept_share(self._units, own.density),
            scope=own.scope,
            within=None,
            floor=own.floor,
        )

    def _renew_dropped(self) -> None:
        mask = self.mask
        self._dropped = {name: (~mask[name]).to(self._parameters[name].device) for name in mask}

    def _renew_factor(self) -> None:
        if not self.full:
            return
        mean = sum(self.distances) / len(self.distances)
        if self.settings.truncate == "distance" and self.settings.truncation < 1:
            self.factor = min(1.0, mean)
        elif mean < self.settings.epsilon + self.settings.margin:
            self.factor = self.settings.truncation

    @torch.no_grad()
    def shape_gradients(self, scale: Tensor | float = 1.0) -> None:
        """Add the penalty to the scales' gradients, and hold back those of what is dropped; scale: the loss's."""
        for name, dropped in self._dropped.items():
            gradient, value = self._parameters[name].grad, self._parameters[name]
            if gradient is None:
                continue
            if self.settings.penalty and name.endswith("weight"):
                gradient.add_(value.detach().sign().to(gradient.dtype) * scale, alpha=self.settings.penalty)
            if self.factor != 1:
                gradient.copy_(torch.where(dropped, gradient * self.factor, gradient))

    @torch.no_grad()
    def _scale_moments(self, optimizer: Optimizer) -> None:
        for name, dropped in self._dropped.items():
            for key, moment in optimizer.state.get(self._parameters[name], {}).items():
                if key in MOMENTS and isinstance(moment, Tensor):
                    moment.copy_(torch.where(dropped, moment * self.factor, moment))

    def before_step(self, state: State) -> None:
        self.shape_gradients()

    def epoch_end(self, state: State) -> bool:
        settled = self.look(state.optimizer)
        state.history[-1]["mask_distance"] = max(self.distances) if self.full else 1.0
        return settled

    def state_dict(self) -> dict[str, Any]:
        return {"masks": [dict(mask) for mask in self.masks], "distances": self.distances, "factor": self.factor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        masks = [Mask.of(mask) for mask in state["masks"]]
        if any(mask.shapes != self._sizes for mask in masks):
            raise TombolaError("the stored masks are of another network; go on with the network of the checkpoint")
        self.masks, self.distances, self.factor = masks, list(state["distances"]), state["factor"]
        if self.masks:
            self._renew_dropped()
