"""Scores from gradients of the training loss: SNIP and its kin, first-order Taylor, GraSP."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from tombola.errors import TombolaError
from tombola.scores.evaluation import Pure, batch_size, gradients_of, loss_of, mean_gradients, ranking
from tombola.scores.kinds import Data, GradientScore
from tombola.scores.types import Scores


@dataclass(frozen=True)
class GraspFirstOrder(GradientScore):
    """The signed first-order reading of GraSP, w · ∂L/∂w, as papers on layer pruning describe it.

    It is SNIP without the absolute value, not Wang et al.'s Hessian–gradient product (`Grasp`).
    """

    name: ClassVar[str] = "grasp-first-order"

    def worth(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return weight * gradient


@dataclass(frozen=True)
class Snip(GradientScore):
    """Connection sensitivity |w · ∂L/∂w| at the given weights (Lee, Ajanthan, Torr, ICLR 2019).

    batches: how many of the batches given are averaged, signs and all, before the absolute value;
    batch_norm: the mode of batch norm and dropout while scoring. In rounds it is Iterative SNIP, and with `regrow`
    FORCE (de Jorge et al., ICLR 2021).
    """

    name: ClassVar[str] = "snip"

    def worth(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return (weight * gradient).abs()


@dataclass(frozen=True)
class SquaredGradient(GradientScore):
    """(∂L/∂w)², whatever the weight: GRASP-It, which keeps the gradient's norm (de Jorge et al., ICLR 2021)."""

    name: ClassVar[str] = "squared-gradient"

    def worth(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return gradient.square()


@dataclass(frozen=True)
class Taylor(GradientScore):
    """First-order Taylor importance (w · ∂L/∂w)², the mean over batches (Molchanov et al., CVPR 2019).

    Of one batch and single weights it ranks as SNIP does; over batches signs do not cancel, and units add up squares.
    """

    name: ClassVar[str] = "taylor"

    def measure(self, network: Pure, data: Data) -> Scores:
        batches = list(data.batches)
        squares = [torch.zeros_like(weight) for weight in network.weights.values()]
        for batch in batches:
            gradients = mean_gradients(network, [batch], data.loss)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 / len(batches))
        return {n: v.square() * s for (n, v), s in zip(network.values.items(), squares, strict=True)}


@dataclass(frozen=True)
class Grasp(GradientScore):
    """Gradient signal preservation: w · (H g), so that the gradient's norm survives (Wang et al., ICLR 2020).

    The paper removes the largest −w · H g, so this is its negative: larger = keep. temperature: outputs are
    divided by it before the loss; g is the mean over all batches, held fixed in the outer derivative.
    """

    temperature: float = 200.0

    name: ClassVar[str] = "grasp"

    def measure(self, network: Pure, data: Data) -> Scores:
        batches, loss = list(data.batches), data.loss

        def cooled(outputs: Tensor, targets: Tensor) -> Tensor:
            return loss(outputs / self.temperature, targets)

        with twice_differentiable(self.name):
            fixed = mean_gradients(network, batches, cooled) if len(batches) > 1 else None
            samples = sum(batch_size(batch) for batch in batches)
            products = [torch.zeros_like(weight) for weight in network.weights.values()]
            for batch in batches:
                value = loss_of(network, batch, cooled) * (batch_size(batch) / samples)
                torch._foreach_add_(products, hessian_product(value, network.weights, fixed))
            ranking(products, network)
        return {n: v * p for (n, v), p in zip(network.values.items(), products, strict=True)}


def hessian_product(value: Tensor, weights: Mapping[str, Tensor], direction: Sequence[Tensor] | None) -> list[Tensor]:
    """The Hessian of a value times a direction, one tensor a weight; None: the value's own gradient."""
    gradients = gradients_of(value, weights, create_graph=True)
    if any(node.name() == "torch::autograd::Error" for node in _nodes(gradients)):
        raise RuntimeError("derivative of a function marked @once_differentiable")  # autograd would take it for 0
    along = [g.detach() for g in gradients] if direction is None else direction
    curved = [(g, d) for g, d in zip(gradients, along, strict=True) if g.requires_grad]
    own = list(weights.values())
    if not curved:
        return [torch.zeros_like(weight) for weight in own]
    ends, starts = zip(*curved, strict=True)
    return list(torch.autograd.grad(ends, own, starts, materialize_grads=True))


def _nodes(tensors: Sequence[Tensor]) -> set[Node]:
    """All operations from which tensors were computed, as autograd records them."""
    reached: set[Node] = set()
    waiting = [tensor.grad_fn for tensor in tensors]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in reached:
            reached.add(node)
            waiting += [earlier for earlier, _ in node.next_functions]
    return reached


@contextmanager
def twice_differentiable(score: str) -> Generator[None]:
    """Attention by matrix products, which has a second derivative; TombolaError that names an operation without one."""
    with sdpa_kernel(SDPBackend.MATH):
        try:
            yield
        except RuntimeError as error:
            named = re.search(r"derivative for (\S+) is not implemented|(@once_differentiable)", str(error))
            if named is None:
                raise
            operation = named[1] or f"a function marked {named[2]}"
            raise TombolaError(
                f"the score '{score}' needs a second derivative, which {operation} does not have; use "
                "grasp-first-order, snip, synflow, magnitude or prospr with gradient='first-order'"
            ) from error
