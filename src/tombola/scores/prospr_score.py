"""ProsPr: the sensitivity of the loss after a few steps of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.scores.evaluation import Pure, gradients_of, loss_of, ranking
from tombola.scores.gradient_scores import hessian_product, twice_differentiable
from tombola.scores.kinds import Data, Needs, WeightScore
from tombola.scores.types import Scores
from tombola.structure import Mode, seed_torch
from tombola.tickets import parameters_of

Point = dict[str, Tensor]
"""Values of all parameters that the steps train."""

LossAt = Callable[[Point, int], Tensor]
"""The loss of a step's batch, with the step's own randomness, at a point."""


@dataclass(frozen=True)
class ProsPr(WeightScore):
    """|∂L/∂m| at m = 1, L the loss after a few steps of SGD from w · m (Alizadeh et al., ICLR 2022).

    steps, lr, momentum: of the SGD, which trains all parameters; gradient: `full`, through the steps, or `first-order`,
    as if what they add did not depend on m: w · ∂L/∂w at their end; new_data: each step and the loss have a batch of
    their own, in turn if there are fewer. Batch norm in train mode. Each step takes the memory of the parameters and no
    more: on the way back it is done again, for a product with its Hessian.
    """

    steps: int = 3
    lr: float = 0.1
    momentum: float = 0.0
    gradient: Literal["full", "first-order"] = "full"
    new_data: bool = True

    name: ClassVar[str] = "prospr"
    needs: ClassVar[Needs] = "data"
    needs_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise TombolaError(f"steps is {self.steps}; give at least 1, or use snip, which takes none")

    @property
    def mode(self) -> Mode:
        return "train"

    @property
    def reads(self) -> int:
        return self.steps + 1 if self.new_data else 1

    def measure(self, network: Pure, data: Data) -> Scores:
        own = parameters_of(network.model)
        trained = [name for name, parameter in own.items() if parameter.requires_grad and name in network.others]
        start = network.weights | {name: network.others[name] for name in trained}
        with twice_differentiable(self.name) if self.gradient == "full" else nullcontext():
            slope = self._slope(start, _losses(network, data))
            ranking([slope[name] for name in network.weights], network)
        return {name: value.mul_(slope[name]).abs_() for name, value in network.values.items()}

    def _slope(self, start: Point, loss_at: LossAt) -> Point:
        """The gradient of the loss after the steps with respect to where they start, or to where they end."""
        point, velocity, path = _leaves(start), None, []
        for step in range(self.steps):
            gradient = gradients_of(loss_at(point, step), point)
            velocity = gradient if velocity is None else torch._foreach_add(gradient, velocity, alpha=self.momentum)
            path.append(point)
            moved = torch._foreach_sub(list(point.values()), velocity, alpha=self.lr)
            point = _leaves(dict(zip(point, moved, strict=True)))
        slope = gradients_of(loss_at(point, self.steps), point)
        if self.gradient == "first-order":
            return dict(zip(start, slope, strict=True))
        del point, velocity, gradient, moved
        pull = [torch.zeros_like(own) for own in slope]
        for step in reversed(range(self.steps)):
            point = path.pop()
            pull = torch._foreach_sub(torch._foreach_mul(pull, self.momentum), slope, alpha=self.lr)
            slope = torch._foreach_add(slope, hessian_product(loss_at(point, step), point, pull))
        return dict(zip(start, slope, strict=True))


def _losses(network: Pure, data: Data) -> LossAt:
    """The loss of each step's batch at any point; the same dropout whenever a step is done."""
    batches, loss = list(data.batches), data.loss

    def loss_at(point: Point, step: int) -> Tensor:
        network.weights = {name: point[name] for name in network.weights}
        network.others |= {name: own for name, own in point.items() if name not in network.weights}
        seed_torch(data.seed + step)
        return loss_of(network, batches[step % len(batches)], loss)

    return loss_at


def _leaves(values: Mapping[str, Tensor]) -> Point:
    return {name: value.detach().requires_grad_() for name, value in values.items()}
