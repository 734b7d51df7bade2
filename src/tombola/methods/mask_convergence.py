"""Watching masks settle while a network trains, and holding back what they drop."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.fields import LATER, check_fields
from tombola.scores import Score
from tombola.structure import UnitMap, kept_share
from tombola.tickets import Mask, Scope, TieWarning, own_part, parameters_of, part_like
from tombola.training import Observer, State

MOMENTS = ("momentum_buffer", "exp_avg")
"""What optimizers call their running mean of gradients."""


@dataclass(frozen=True)
class ConvergenceRule:
    """When the units that a pruning would keep have settled, and what happens to the others.

    After each epoch, the channels with the largest batch-norm scales |γ|, over all layers together and up to the
    density, make a mask. Units of another kind are ranked by the size of their weights.

    Args:
        density: the share of units to keep, above 0 and at most 1.
        epsilon: the masks have settled when their distances, normalised Hamming, are below this.
        window: how many masks, or distances, are looked at.
        rule: which distances count: of the newest mask to each other one of the last `window` (`window`, as in the
            paper's code), or the last `window` distances from one mask to the next (`consecutive`, as in its text).
        untrained: whether the mask before training is one of them.
        penalty: adds this times the sign of γ to its gradient (network slimming).
        truncation: the factor on the gradients of what the newest mask drops (WORM): a channel's γ and β, or all
            weights of a unit of another kind; 1 truncates nothing.
        truncate: when gradients are truncated: once the mean distance was below epsilon + margin (`settled`), from the
            beginning (`always`), or each epoch by the mean distance itself as factor (`distance`).
        margin: how far above epsilon the mean distance may be when truncation begins, with truncate='settled'.
        momentum: whether the optimizer's running mean of these gradients is scaled as well, once an epoch.
        scope: how layers share the density: all units are ranked together (`global`), or each layer keeps the same
            share (`layerwise`).
        floor: units that each layer keeps at least.
        strict: whether a distance of exactly epsilon is too large, as in the papers; else it is small enough, as in
            WORM's code.
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
    strict: bool = field(default=True, metadata=LATER)

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
    """Takes a network's mask after each epoch, and shapes the gradients of what the newest one drops.

    Args:
        settings: when masks have settled, and what happens to dropped units.
        model: the network that trains.
        units: the units that are ranked.
        score: how they are ranked.
    """

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
            first_mask = self._choose()
            self._shapes = first_mask.shapes
            self.names = list(units.expand(first_mask, self._parameters))
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
        """Whether there are as many distances as the rule looks at."""
        return len(self.distances) == self.settings.window - (self.settings.rule == "window")

    @property
    def settled(self) -> bool:
        """Whether the masks have settled."""
        if not self.full:
            return False
        largest, epsilon = max(self.distances), self.settings.epsilon
        return largest < epsilon if self.settings.strict else largest <= epsilon

    def look(self, *optimizers: Optimizer) -> bool:
        """Take the mask of this moment; True when the masks have settled.

        Args:
            optimizers: those whose running means are scaled, if `momentum` asks for it.
        """
        settings = self.settings
        kept = self._choose()
        if settings.rule == "window":
            self.masks = [*self.masks, kept][-settings.window :]
            window_full = len(self.masks) == settings.window
            self.distances = [kept.distance(earlier) for earlier in self.masks[:-1]] if window_full else []
        else:
            self.distances = [*self.distances, *(kept.distance(earlier) for earlier in self.masks)][-settings.window :]
            self.masks = [kept]
        self._update_dropped()
        self._update_factor()
        if settings.momentum and self.factor != 1:
            for optimizer in optimizers:
                self._scale_moments(optimizer)
        return self.settled

    def _choose(self) -> Mask:
        settings = self.settings
        return self._units.choose(
            self._score(self._model),
            kept_share(self._units, settings.density),
            scope=settings.scope,
            within=None,
            floor=settings.floor,
        )

    def _update_dropped(self) -> None:
        mask = self.mask
        self._dropped = {
            name: part_like(~mask[name], self._parameters[name]).to(self._parameters[name].device) for name in mask
        }

    def _update_factor(self) -> None:
        if not self.full:
            return
        mean = sum(self.distances) / len(self.distances)
        if self.settings.truncate == "distance" and self.settings.truncation < 1:
            self.factor = min(1.0, mean)
        elif mean < self.settings.epsilon + self.settings.margin:
            self.factor = self.settings.truncation

    @torch.no_grad()
    def shape_gradients(self, scale: Tensor | float = 1.0, of: Optimizer | None = None) -> None:
        """Add the penalty to the gradients of norms' scales, and truncate the gradients of what is dropped.

        Args:
            scale: the factor that the loss was scaled with, so that the penalty is scaled alike.
            of: the optimizer whose parameters' gradients are meant; None means all.
        """
        stepped = None if of is None else {parameter for group in of.param_groups for parameter in group["params"]}
        for name, dropped in self._dropped.items():
            parameter = self._parameters[name]
            if parameter.grad is None or not (stepped is None or parameter in stepped):
                continue
            gradient = own_part(parameter.grad)
            if self.settings.penalty and name.endswith("weight"):
                gradient.add_(own_part(parameter).sign().to(gradient.dtype) * scale, alpha=self.settings.penalty)
            if self.factor != 1:
                gradient.copy_(torch.where(dropped, gradient * self.factor, gradient))

    @torch.no_grad()
    def _scale_moments(self, optimizer: Optimizer) -> None:
        for name, dropped in self._dropped.items():
            for key, moment in optimizer.state.get(self._parameters[name], {}).items():
                if key in MOMENTS and isinstance(moment, Tensor):
                    own = own_part(moment)
                    own.copy_(torch.where(dropped, own * self.factor, own))

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
        if any(mask.shapes != self._shapes for mask in masks):
            raise TombolaError("the stored masks are of another network; go on with the network of the checkpoint")
        self.masks, self.distances, self.factor = masks, list(state["distances"]), state["factor"]
        if self.masks:
            self._update_dropped()
