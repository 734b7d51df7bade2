"""Attacks on inputs: points within ε of given ones, in the maximum norm, on which a network's loss is high."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.structure import in_mode
from tombola.tickets import gradients_taken

Network = Callable[[Tensor], Any]
LossFunction = Callable[[Any, Any], Tensor]
Units = Literal["share", "data"]


@dataclass(frozen=True)
class Ball:
    """How far an attack may move each number of an input.

    Args:
        epsilon: ε, the farthest.
        units: what ε counts in: the way from the lowest to the highest value of the data (`share`), or the data's own
            numbers (`data`).
    """

    epsilon: float = 8 / 255
    units: Units = "share"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.epsilon < 0:
            raise TombolaError(f"ε is {self.epsilon}; give a number of at least 0, as 8/255")

    def in_data(self, size: float, low: Tensor, high: Tensor) -> Tensor:
        """A length on the data's own scale; low, high: the range of the data."""
        return size * (high - low) if self.units == "share" else torch.full_like(high - low, size)


@dataclass(frozen=True)
class Attack(Ball):
    """Steps along the sign of the loss's gradient, within ε (PGD; Madry et al., ICLR 2018).

    `Attack.fgsm` and `Attack.fast` are those of a single step.

    Args:
        steps: how many.
        step: the length of each, in the units of ε; None takes 2.5·ε / steps, and ε for a single one.
        start: where they begin: at the input itself (`clean`), or at a uniform random point of the ball (`random`).
        mode: whether norms and dropout act as in evaluation (`eval`) or training (`train`) while gradients are taken.
            In training mode the attack moves the norms' statistics too.

    Raises:
        TombolaError: ε is negative, or there is no step.

    Examples:
        >>> Attack(epsilon=0.1, steps=5).length, Attack.fgsm(0.1).steps
        (0.05, 1)
    """

    steps: int = 10
    step: float | None = None
    start: Literal["clean", "random"] = "random"
    mode: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or (self.step is not None and not self.step > 0):
            raise TombolaError(
                f"the attack has {self.steps} steps of {self.step}; give at least one step, and a length above 0"
            )

    @staticmethod
    def fgsm(epsilon: float = 8 / 255, units: Units = "share") -> Attack:
        """One step of ε from the input itself (FGSM; Goodfellow et al., ICLR 2015)."""
        return Attack(epsilon, units, steps=1, step=epsilon or None, start="clean")

    @staticmethod
    def fast(epsilon: float = 8 / 255, units: Units = "share") -> Attack:
        """One step of 1.25·ε from a random point, in training mode (Wong, Rice, Kolter, ICLR 2020)."""
        return Attack(epsilon, units, steps=1, step=1.25 * epsilon or None, mode="train")

    @property
    def length(self) -> float:
        """The length of a step, in the units of ε."""
        if self.step is not None:
            return self.step
        return self.epsilon if self.steps == 1 else 2.5 * self.epsilon / self.steps

    @property
    def passes(self) -> int:
        """How many forward and backward passes an attack takes."""
        return self.steps

    def __call__(
        self, module: Any, network: Network, inputs: Tensor, targets: Any, loss: LossFunction, low: Tensor, high: Tensor
    ) -> Tensor:
        """Attack inputs.

        Args:
            module: whose mode is set meanwhile.
            network: calls it.
            inputs: floats within their range.
            targets: what the loss compares the outputs with.
            loss: of outputs and targets.
            low: the lowest value of the data, which broadcasts against the inputs.
            high: the highest.

        Returns:
            The attacked inputs.
        """
        reach = self.in_data(self.epsilon, low, high)
        lowest, highest = (inputs - reach).maximum(low), (inputs + reach).minimum(high)
        begin = inputs
        if self.start == "random":
            begin = inputs + reach * (2 * torch.rand_like(inputs) - 1)
            begin = begin.clamp(lowest, highest)
        with in_mode(module, self.mode), torch.enable_grad():
            return ascended(
                network, begin, targets, loss, lowest, highest, self.in_data(self.length, low, high), self.steps
            )


def ascended(
    network: Network,
    begin: Tensor,
    targets: Any,
    loss: LossFunction,
    lowest: Tensor,
    highest: Tensor,
    stride: Tensor,
    steps: int,
) -> Tensor:
    """Walk up a loss along the signs of its gradient.

    Args:
        network: gives outputs.
        begin: where it begins.
        targets: what the loss compares the outputs with.
        loss: of outputs and targets.
        lowest: the lowest value of each number.
        highest: the highest.
        stride: the length of a step.
        steps: how many.

    Returns:
        The point after the last step.
    """
    attacked = begin.detach()
    for _ in range(steps):
        attacked.requires_grad_()
        # With respect to the inputs alone, so that the parameters' gradients stay as they were.
        (gradient,) = torch.autograd.grad(loss(network(attacked), targets).sum(), attacked)
        gradients_taken()
        attacked = (attacked.detach() + stride * gradient.sign()).clamp(lowest, highest)
    return attacked
