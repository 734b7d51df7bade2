"""APGD: projected gradient ascent that finds the length of its steps itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tombola.errors import TombolaError
from tombola.structure import in_mode
from tombola.tickets import gradients_taken
from tombola.training.attacks import Ball, LossFunction, Network

MOMENTUM, SHARE_OF_RISES = 0.75, 0.75


@dataclass(frozen=True)
class Apgd(Ball):
    """Projected gradient ascent whose steps become shorter where it stops rising (APGD-CE; Croce & Hein, ICML 2020).

    It ascends the cross-entropy of class numbers, each sample by itself, from a random point of the ball.

    Args:
        steps: how many.

    Raises:
        TombolaError: ε is negative, or there is no step.
    """

    steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise TombolaError(f"the attack has {self.steps} steps; give at least one")

    @property
    def passes(self) -> int:
        """How many forward and backward passes an attack takes."""
        return self.steps + 1

    @staticmethod
    def check_targets(targets: Any) -> None:
        """TombolaError unless targets are class numbers, one a sample."""
        if not (isinstance(targets, Tensor) and targets.ndim == 1 and not targets.is_floating_point()):
            raise TombolaError("APGD ascends the cross-entropy of class numbers, one a sample; use pgd for this task")

    def __call__(
        self, module: Any, network: Network, inputs: Tensor, targets: Any, loss: LossFunction, low: Tensor, high: Tensor
    ) -> Tensor:
        """Attack inputs; the arguments are those of `Attack`, but for the loss, which is the cross-entropy."""
        self.check_targets(targets)
        reach = self.in_data(self.epsilon, low, high)
        lowest, highest = (inputs - reach).maximum(low), (inputs + reach).minimum(high)
        with in_mode(module, "eval"), torch.enable_grad():
            ascent = _Ascent(network, targets, lowest, highest)
            begin = inputs + reach * (2 * torch.rand_like(inputs) - 1)
            return ascent.run(begin.clamp(lowest, highest), 2 * reach, self.steps)


class _Ascent:
    """The ascent of a batch, each sample with its own step and its own best point."""

    def __init__(self, network: Network, targets: Tensor, lowest: Tensor, highest: Tensor) -> None:
        self._network, self._targets, self._lowest, self._highest = network, targets, lowest, highest

    def run(self, begin: Tensor, stride: Tensor, steps: int) -> Tensor:
        losses, gradient = self._at(begin)
        point = before = best = begin
        best_gradient, best_losses = gradient, losses
        each = (-1, *[1] * (begin.ndim - 1))
        scale = torch.ones(len(begin), device=begin.device)
        rises, was_halved, last_best = torch.zeros_like(scale), torch.ones_like(scale, dtype=torch.bool), losses
        checkpoint, interval, shortest, shrink = _intervals(steps)
        for step in range(steps):
            moved = self._inside(point + stride * scale.view(each) * gradient.sign())
            weight = 1.0 if step == 0 else MOMENTUM  # There is no step before the first.
            point, before = self._inside(point + weight * (moved - point) + (1 - weight) * (point - before)), point
            earlier, (losses, gradient) = losses, self._at(point)
            rises = rises + (losses > earlier)
            better = losses > best_losses
            best_losses = torch.where(better, losses, best_losses)
            best = torch.where(better.view(each), point, best)
            best_gradient = torch.where(better.view(each), gradient, best_gradient)
            if step + 1 == checkpoint:
                stalled = (rises <= SHARE_OF_RISES * interval) | (~was_halved & (last_best >= best_losses))
                was_halved, last_best = stalled, best_losses
                scale = torch.where(stalled, scale / 2, scale)
                point = torch.where(stalled.view(each), best, point)
                gradient = torch.where(stalled.view(each), best_gradient, gradient)
                rises = torch.zeros_like(rises)
                interval = max(interval - shrink, shortest)
                checkpoint += interval
        return best

    def _at(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each sample, and the gradient at its point."""
        leaf = point.detach().requires_grad_()
        losses = F.cross_entropy(self._network(leaf).float(), self._targets, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        gradients_taken()
        return losses.detach(), gradient

    def _inside(self, point: Tensor) -> Tensor:
        return point.clamp(self._lowest, self._highest)


def _intervals(steps: int) -> tuple[int, int, int, int]:
    """The first checkpoint, the steps until then, the fewest between two, and by how much they become fewer."""
    first, shortest, shrink = (max(1, int(share * steps)) for share in (0.22, 0.06, 0.03))
    return first, first, shortest, shrink
