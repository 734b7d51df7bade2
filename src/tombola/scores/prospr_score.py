"""ProsPr: the sensitivity of the loss after a few steps of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.scores.evaluation import Pure, check_some_nonzero, gradients_of, loss_of
from tombola.scores.gradient_scores import hessian_product, twice_differentiable
from tombola.scores.kinds import Data, Needs, WeightScore
from tombola.scores.types import Scores
from tombola.structure import Mode, seed_torch
from tombola.tickets import parameters_of

Point = dict[str, Tensor]
"""The values of all parameters that the steps train, by name."""

LossAt = Callable[[Point, int], Tensor]
"""(point, step) → the loss of the step's batch at the point, with the step's own randomness."""


@dataclass(frozen=True)
class ProsPr(WeightScore):
    """|∂L/∂m| at m = 1, L the loss after a few steps of SGD from w · m (Alizadeh et al., ICLR 2022).

    The SGD trains all parameters, with batch norm in training mode. A step needs the memory of one more copy of the
    parameters, since the way back computes each step again, for a product with its Hessian.

    Args:
        steps: how many steps of SGD.
        lr: the learning rate of the SGD.
        momentum: of the SGD.
        gradient: `full` differentiates through the steps. `first-order` takes their sum as a constant, which leaves
            w · ∂L/∂w at their end.
        new_data: each step and the loss read a batch of their own, in turn if there are fewer. Otherwise all read the
            first batch.

    Examples:
        >>> layer, batch = torch.nn.Linear(4, 3), (torch.randn(8, 4), torch.randint(3, (8,)))
        >>> ProsPr(steps=1)(layer, [batch], torch.nn.functional.cross_entropy)["weight"].shape
        torch.Size([3, 4])
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
        parameters = parameters_of(network.model)
        trained = [name for name, p in parameters.items() if p.requires_grad and name in network.others]
        start = network.weights | {name: network.others[name] for name in trained}
        with twice_differentiable(self.name) if self.gradient == "full" else nullcontext():
            gradients = self._gradient_after_steps(network, start, _losses(network, data))
            check_some_nonzero([gradients[name] for name in network.weights], network)
        return {name: value.mul_(gradients[name]).abs_() for name, value in network.values.items()}

    def _gradient_after_steps(self, network: Pure, start: Point, loss_at: LossAt) -> Point:
        """The gradient of the loss after the steps, with respect to their start (`full`) or their end."""
        point, velocity, path = _leaves(start), None, []
        for step in range(self.steps):
            gradient = gradients_of(loss_at(point, step), point)
            velocity = gradient if velocity is None else torch._foreach_add(gradient, velocity, alpha=self.momentum)
            path.append(point)
            moved = torch._foreach_sub(list(point.values()), velocity, alpha=self.lr)
            point = _leaves(dict(zip(point, moved, strict=True)))
        adjoint = gradients_of(loss_at(point, self.steps), point)
        if self.gradient == "first-order":
            return dict(zip(start, adjoint, strict=True))
        del point, velocity, gradient, moved  # frees three copies of the parameters before the way back
        # The way back: the loss's derivatives with respect to each step's velocity, and to the point where it began.
        velocity_adjoint = [torch.zeros_like(value) for value in adjoint]
        for step in reversed(range(self.steps)):
            point = path.pop()
            decayed = torch._foreach_mul(velocity_adjoint, self.momentum)
            velocity_adjoint = torch._foreach_sub(decayed, adjoint, alpha=self.lr)
            curved = hessian_product(loss_at(point, step), network, point, velocity_adjoint)
            adjoint = torch._foreach_add(adjoint, curved)
        return dict(zip(start, adjoint, strict=True))


def _losses(network: Pure, data: Data) -> LossAt:
    """The loss of each step's batch at any point."""
    batches, loss = list(data.batches), data.loss

    def loss_at(point: Point, step: int) -> Tensor:
        network.weights = {name: point[name] for name in network.weights}
        network.others |= {name: value for name, value in point.items() if name not in network.weights}
        # The way back computes each step again, and has to meet the same dropout.
        seed_torch(data.seed + step)
        return loss_of(network, batches[step % len(batches)], loss)

    return loss_at


def _leaves(values: Mapping[str, Tensor]) -> Point:
    """The same values without their history, as leaves that require gradients."""
    return {name: value.detach().requires_grad_() for name, value in values.items()}
