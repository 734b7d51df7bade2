"""A network with a logit for each weight, evaluated at masks drawn from the concrete distribution."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tombola.methods.concrete_objectives import Passed
from tombola.methods.masked_model import MaskedModel
from tombola.scores import RELUS
from tombola.structure import BATCH_NORMS, Prunable
from tombola.tickets import called_with, kth_largest
from tombola.training import Task

SMALLEST = 1e-10
"""The least uniform number that a mask is drawn from."""


class Drawn(torch.autograd.Function):
    """weight · z with z = σ(φ + logit(u) / τ), for a uniform u of each weight.

    The buffer holds z until the next pass: new memory for each step would take longer than the arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, logit: Tensor, weight: Tensor, buffer: Tensor, temperature: float) -> Tensor:
        gate = buffer.uniform_().logit_(SMALLEST).div_(temperature).add_(logit).sigmoid_()
        ctx.save_for_backward(gate, weight)
        return gate * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        gate, weight = ctx.saved_tensors
        slope = gate.detach().addcmul_(gate, gate, value=-1)
        return (gradients[0] * weight).mul_(slope), None, None, None


class ConcreteModel(MaskedModel):
    """A network whose weights are multiplied by masks that are drawn anew in each pass with gradients.

    It trains in evaluation mode, but for its batch norms, which take the statistics of the batch. Without gradients it
    is the network of the hard mask: the weights with the highest logits, up to the density.

    Args:
        task: says how the model is called on inputs.
        model: the network; its parameters no longer require gradients.
        prunable: which parameters get logits.
        logit: the first value of every logit.
        temperature: τ of the masks.
        count: how many weights the hard mask keeps.
    """

    def __init__(
        self, task: Task, model: nn.Module, prunable: Prunable, logit: float, temperature: float, count: int
    ) -> None:
        super().__init__(task, model, prunable, lambda weight: torch.full_like(weight, logit), self._weighed)
        self._temperature, self._count = temperature, count
        self._threshold: float | Tensor | None = None
        self._gates: list[Tensor] = []

    def train(self, mode: bool = True) -> ConcreteModel:
        """Training mode is that of batch norms alone: dropout and all else stay in evaluation mode."""
        super().train(mode)
        for module in self.called.modules():
            module.training = mode and isinstance(module, BATCH_NORMS)
        return self

    def forget_threshold(self) -> None:
        """The logits have changed."""
        self._threshold = None

    def masked(self, inputs: Any, own: list[Tensor], *, features: bool, differentiable: bool) -> Passed:
        """Call the network at a mask that is drawn anew.

        Args:
            inputs: of the batch.
            own: the model's weights, taken before any pass.
            features: whether to note what ReLUs give.
            differentiable: whether gradients in the weights can be taken, and differentiated again.
        """
        weights = [weight.detach().requires_grad_() for weight in own] if differentiable else own
        drawn = self._soft(list(self.scores), weights, twice=differentiable)
        return self._passed(drawn, weights, inputs, features)

    def dense(self, inputs: Any, own: list[Tensor], *, features: bool, differentiable: bool) -> Passed:
        """Call the network without a mask, which leaves its running statistics as they are; arguments as of `masked`.

        Without `differentiable` no gradient is tracked.
        """
        norms = [module for module in self.called.modules() if isinstance(module, BATCH_NORMS) and module.training]
        norms = [norm for norm in norms if norm.track_running_stats]
        tracked = torch.enable_grad() if differentiable else torch.no_grad()
        with _without_statistics(norms), tracked:
            weights = [weight.detach().requires_grad_() for weight in own] if differentiable else own
            return self._passed(list(weights), weights, inputs, features)

    def _passed(self, used: list[Tensor], weights: list[Tensor], inputs: Any, features: bool) -> Passed:
        watching: AbstractContextManager[Any] = AfterRelu() if features else nullcontext()
        with watching as watched:
            outputs = called_with(self.called, dict(zip(self._paths, used, strict=True)), inputs)
        return Passed(outputs, weights, watched.given if watched is not None else ())

    def _weighed(self, scores: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        if torch.is_grad_enabled() or scores[0].is_meta:
            return self._soft(scores, weights)
        if self._threshold is None:
            self._threshold = kth_largest([score.detach() for score in scores], self._count)
        return [weight * (score >= self._threshold) for score, weight in zip(scores, weights, strict=True)]

    def _soft(self, scores: list[Tensor], weights: list[Tensor], *, twice: bool = False) -> list[Tensor]:
        pairs = list(zip(scores, weights, strict=True))
        if twice or scores[0].is_meta:  # by torch's own operations, which have second derivatives
            return [weight * _gate(torch.empty_like(score), score, self._temperature) for score, weight in pairs]
        if [buffer.device for buffer in self._gates] != [score.device for score in scores]:
            self._gates = [torch.empty_like(score) for score in scores]
        triples = zip(pairs, self._gates, strict=True)
        return [Drawn.apply(score, weight, gate, self._temperature) for (score, weight), gate in triples]


def _gate(noise: Tensor, logit: Tensor, temperature: float) -> Tensor:
    """σ(φ + logit(u) / τ) for a uniform u of each weight."""
    return torch.sigmoid(logit + noise.uniform_().logit_(SMALLEST).div_(temperature))


class AfterRelu(TorchFunctionMode):
    """Inside, notes what ReLUs give."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if func in RELUS:
            self.given.append(outputs)
        return outputs


@contextmanager
def _without_statistics(norms: list[Any]) -> Generator[None]:
    """Inside, norms in training mode leave their running statistics alone."""
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
