"""How a penalty on weights grows, is held, and acts on their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.scores import check_real
from tombola.tickets import Mask, check_fits, own_part, parameters_of, part_like, tensors_of
from tombola.training import Observer, State, Step

Length = float | str
MOST = 5_000_000
"""How often a penalty may grow."""


@dataclass(frozen=True)
class GrowingPenalty:
    """How the penalty on the weights that a random ticket drops grows, and how long it is held.

    In each step, λ · w is added to the gradient of each weight w that shall go. λ begins at 0.

    Args:
        density: the share of units to keep, above 0 and at most 1.
        ramp: over what λ grows to the ceiling, if `increment` does not say it: a share of the recipe's epochs, or a
            length as "50000it" or "64ep".
        hold: how long training goes on with λ at its highest: a share of the recipe's epochs, or a length.
        every: how often λ grows, as "5it" or "1ep".
        ceiling: the highest λ.
        increment: by how much λ grows each time, until it is above the ceiling, as in the published code; None divides
            the ceiling by the number of times that fit into the ramp.
        power: λ is this power of what grows.

    Raises:
        TombolaError: if a setting is out of range.
    """

    density: float = 0.1
    ramp: Length = 0.3
    hold: Length = 0.2
    every: str = "1it"
    ceiling: float = 1.0
    increment: float | None = None
    power: Literal[1, 2, 3] = 1

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("ramp", "hold"):
            value = getattr(self, name)
            if isinstance(value, str):
                Step.parse(value)
            elif value < 0:
                raise TombolaError(f"{name} is {value}; give a share of the recipe's epochs, or a length as '500it'")
        if Step.parse(self.every).count < 1:
            raise TombolaError(f"every is {self.every}; let λ grow after at least one step, as '1it'")
        if not self.ceiling > 0 or not (self.increment is None or self.increment > 0):
            raise TombolaError(f"λ grows by {self.increment} to {self.ceiling}; give numbers above 0")

    def ramp_in(self, steps_per_epoch: int, epochs: float, dtype: torch.dtype = torch.float32) -> Ramp:
        """The penalty of each step.

        Args:
            steps_per_epoch: optimizer steps in an epoch.
            epochs: of the recipe, of which lengths may be shares.
            dtype: of the weights, in which λ is added up.

        Raises:
            TombolaError: if λ would not come to its ceiling.

        Examples:
            >>> ramp = GrowingPenalty(increment=0.25, every="2it", hold="3it").ramp_in(10, 5)
            >>> [ramp.at(step) for step in range(ramp.steps)]  # 1.0 is not above 1
            [0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1.0, 1.0, 1.25, 1.25, 1.25, 1.25]
        """
        every = Step.parse(self.every).iterations(steps_per_epoch)
        hold = _steps(self.hold, steps_per_epoch, epochs)
        kind = np.float64 if dtype == torch.float64 else np.float32
        if self.increment is None:
            length = max(1, _steps(self.ramp, steps_per_epoch, epochs))
            times = max(1, -(-length // every))
            grown = np.arange(1, times + 1) / times
            return Ramp(every, tuple((self.ceiling * grown**self.power).tolist()), length + hold)
        times = int(1.01 * self.ceiling ** (1 / self.power) / self.increment) + 2
        if times > MOST:
            raise TombolaError(f"λ would grow {times:,} times; give a larger increment than {self.increment:g}")
        grown = np.add.accumulate(np.full(times, self.increment, kind))
        grown = grown if self.power == 1 else grown * grown if self.power == 2 else grown * grown * grown
        above = np.flatnonzero(grown > kind(self.ceiling))
        if not len(above):
            raise TombolaError(f"an increment of {self.increment:g} is lost in rounding; give a larger one")
        last = int(above[0])
        return Ramp(every, tuple(grown[: last + 1].tolist()), every * last + hold + 1)


@dataclass(frozen=True)
class Ramp:
    """The penalty of each step of a transformation.

    Args:
        every: after how many steps λ grows; it does so in the first, too.
        values: λ after each time.
        steps: how many steps the transformation takes.
    """

    every: int
    values: tuple[float, ...]
    steps: int

    def at(self, step: int) -> float:
        """λ in a step, counted from 0."""
        return self.values[min(step // self.every, len(self.values) - 1)]


class Extrusion(Observer):
    """Presses what a network knows out of the weights that a mask drops.

    Args:
        mask: keeps the other weights.
        model: the network.
        ramp: the penalty of each step.

    Attributes:
        values: the network's parameters and buffers after the last step of the ramp; empty before.
    """

    def __init__(self, mask: Mask, model: nn.Module, ramp: Ramp) -> None:
        parameters = parameters_of(model)
        check_fits(mask, parameters)
        check_real({name: parameters[name] for name in mask}, "a growing penalty")
        self.mask, self.ramp = mask, ramp
        self.values: dict[str, Tensor] = {}
        self._dropped = [
            (parameters[name], part_like((~mask[name]).to(parameters[name].dtype), parameters[name]))
            for name in mask
            if mask.kept(name) < mask.bits[name].size
        ]

    @torch.no_grad()
    def press(self, step: int, scale: Tensor | float = 1.0, of: Optimizer | None = None) -> None:
        """Add the penalty's gradient.

        Args:
            step: counted from 0.
            scale: the factor that the loss was scaled with.
            of: the optimizer whose parameters are meant; None means all.
        """
        penalty = self.ramp.at(step)
        held = None if of is None else {parameter for group in of.param_groups for parameter in group["params"]}
        for weight, dropped in self._dropped:
            if weight.grad is None or not (held is None or weight in held):
                continue
            gradient, own = own_part(weight.grad), own_part(weight)
            if isinstance(scale, Tensor):
                gradient.add_(own * dropped * (penalty * scale).to(own.dtype))
            else:
                gradient.addcmul_(own, dropped, value=penalty * scale)

    @property
    def removed_norm(self) -> float:
        """The share of the squared norm of the masked parameters that lies in what the mask drops."""
        dropped = sum(float((own_part(weight.detach()) * dead).square().sum()) for weight, dead in self._dropped)
        whole = sum(float(own_part(weight.detach()).square().sum()) for weight, _ in self._dropped)
        return dropped / whole if whole else 0.0

    def before_step(self, state: State) -> None:
        self.press(state.step)

    def after_step(self, state: State) -> None:
        if state.step == self.ramp.steps:
            self.values = {name: tensor.clone() for name, tensor in tensors_of(state.model).items()}

    def epoch_end(self, state: State) -> bool:
        last = min(state.step, self.ramp.steps) - 1
        state.history[-1] |= {
            "density": self.mask.density,
            "penalty": self.ramp.at(last),
            "removed_norm": self.removed_norm,
        }
        return state.step >= self.ramp.steps

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.values = dict(state["values"])


def _steps(length: Length, steps_per_epoch: int, epochs: float) -> int:
    """A length in optimizer steps; shares come to whole epochs."""
    if isinstance(length, str):
        return Step.parse(length).iterations(steps_per_epoch)
    return round(length * epochs) * steps_per_epoch
