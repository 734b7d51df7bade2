"""Scores from gradients of the training loss: SNIP and its kin, first-order Taylor, GraSP."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from tombola.errors import TombolaError
from tombola.nested import mapped
from tombola.scores.evaluation import Pure, batch_size, check_some_nonzero, gradients_of, loss_of, mean_gradients
from tombola.scores.kinds import Data, GradientScore
from tombola.scores.types import Scores
from tombola.tickets import Mask


@dataclass(frozen=True)
class GraspFirstOrder(GradientScore):
    """The signed first-order reading of GraSP, w · ∂L/∂w, as papers on layer pruning describe it.

    It is SNIP without the absolute value, not Wang et al.'s Hessian–gradient product (`Grasp`). Its sum over a filter
    or block is 0 where a norm in train mode stands behind the weights: methods read it in evaluation mode there.

    Args:
        batches: how many batches to read. Their gradients are averaged with their signs.
        batch_norm: the mode of batch norm and dropout during scoring.
    """

    name: ClassVar[str] = "grasp-first-order"
    cancels: ClassVar[bool] = True

    def worth(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return weight * gradient


@dataclass(frozen=True)
class Snip(GradientScore):
    """Connection sensitivity |w · ∂L/∂w| at the given weights (Lee, Ajanthan, Torr, ICLR 2019).

    In rounds it is Iterative SNIP, and with `regrow` FORCE (de Jorge et al., ICLR 2021).

    Args:
        batches: how many batches to read. Their gradients are averaged with their signs, before the absolute value.
        batch_norm: the mode of batch norm and dropout during scoring.

    Examples:
        >>> layer, batch = torch.nn.Linear(4, 3), (torch.randn(8, 4), torch.randint(3, (8,)))
        >>> Snip()(layer, [batch], torch.nn.functional.cross_entropy)["weight"].shape
        torch.Size([3, 4])
    """

    name: ClassVar[str] = "snip"

    def worth(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return (weight * gradient).abs()


@dataclass(frozen=True)
class SquaredGradient(GradientScore):
    """(∂L/∂w)², whatever the weight: GRASP-It, which keeps the gradient's norm (de Jorge et al., ICLR 2021).

    Args:
        batches: how many batches to read. Their gradients are averaged with their signs, before they are squared.
        batch_norm: the mode of batch norm and dropout during scoring.
    """

    name: ClassVar[str] = "squared-gradient"

    def worth(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return gradient.square()


@dataclass(frozen=True)
class Taylor(GradientScore):
    """First-order Taylor importance (w · ∂L/∂w)², the mean over batches (Molchanov et al., CVPR 2019).

    On one batch it ranks single weights as SNIP does. Over several batches signs do not cancel. A unit sums squares.

    Args:
        batches: how many batches to read. Each batch's gradient is squared before the mean.
        batch_norm: the mode of batch norm and dropout during scoring.
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

    The paper removes the largest −w · H g; this score is its negative, so that larger = keep. The gradient g is the
    mean over all batches, and a constant for the outer derivative. With a mask, g is that of the kept weights alone,
    since no other can train: the score then says what a weight does for their gradient's norm. With `regrow` any weight
    may come back, and g is that of all.

    Args:
        batches: how many batches to read.
        batch_norm: the mode of batch norm and dropout during scoring.
        temperature: divides the outputs before the loss; 200 as in the paper.
    """

    temperature: float = 200.0

    name: ClassVar[str] = "grasp"

    def measure(self, network: Pure, data: Data) -> Scores:
        batches, loss = list(data.batches), data.loss
        trained = None if data.view.get("regrow") else data.view.get("mask")

        def cooled(outputs: Any, targets: Any) -> Tensor:
            return loss(mapped(outputs, lambda t: t / self.temperature if t.is_floating_point() else t), targets)

        with twice_differentiable(self.name):
            # With one batch, g comes out of the product itself, and one backward pass is saved.
            mean = mean_gradients(network, batches, cooled) if len(batches) > 1 else None
            samples = sum(batch_size(batch) for batch in batches)
            products = [torch.zeros_like(weight) for weight in network.weights.values()]
            for batch in batches:
                value = loss_of(network, batch, cooled) * (batch_size(batch) / samples)
                torch._foreach_add_(products, hessian_product(value, network, network.weights, mean, trained))
            check_some_nonzero(products, network)
        return {n: v * p for (n, v), p in zip(network.values.items(), products, strict=True)}


def hessian_product(
    value: Tensor,
    network: Pure,
    weights: Mapping[str, Tensor],
    direction: Sequence[Tensor] | None,
    along: Mask | None = None,
) -> list[Tensor]:
    """The Hessian of a value times a direction.

    Args:
        value: one number, as a loss.
        network: its last call computed the value.
        weights: the weights by name.
        direction: one tensor for each weight; the value's own gradient if None.
        along: where the direction counts; it is 0 elsewhere. Everywhere if None.

    Returns:
        One tensor for each weight.
    """
    buffers = network.first_buffers()
    gradients = gradients_of(value, weights, create_graph=True)
    network.begin_again(buffers)
    # autograd would take this second derivative for 0, and not raise an error.
    if any(node.name() == "torch::autograd::Error" for node in nodes_behind(gradients)):
        raise RuntimeError("derivative of a function marked @once_differentiable")
    vectors = [g.detach() for g in gradients] if direction is None else direction
    if along is not None:
        vectors = [_within(along, name, vector) for name, vector in zip(weights, vectors, strict=True)]
    # A gradient that does not depend on the weights has no graph, which autograd.grad would refuse.
    curved = [(g, v) for g, v in zip(gradients, vectors, strict=True) if g.requires_grad]
    inputs = list(weights.values())
    if not curved:
        return [torch.zeros_like(weight) for weight in inputs]
    outputs, grad_outputs = zip(*curved, strict=True)
    return list(torch.autograd.grad(outputs, inputs, grad_outputs, materialize_grads=True))


def _within(mask: Mask, name: str, vector: Tensor) -> Tensor:
    return torch.where(mask[name].to(vector.device), vector, 0.0) if name in mask else vector


def nodes_behind(tensors: Sequence[Tensor]) -> set[Node]:
    """All operations in autograd's graph that tensors were computed by."""
    visited: set[Node] = set()
    waiting = [tensor.grad_fn for tensor in tensors]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in visited:
            visited.add(node)
            waiting += [earlier for earlier, _ in node.next_functions]
    return visited


@contextmanager
def twice_differentiable(score: str) -> Generator[None]:
    """Inside, attention has a second derivative, and a missing second derivative raises a TombolaError that names it.

    Flash and memory-efficient attention have none; attention by matrix products does.

    Args:
        score: the score's name, for the error.
    """
    with sdpa_kernel(SDPBackend.MATH):
        try:
            yield
        except RuntimeError as error:
            if "selective activation checkpoint" in str(error):
                raise TombolaError(
                    f"the score '{score}' goes backward twice, and selective activation checkpointing allows it once; "
                    "checkpoint without its context_fn, or use snip, synflow or magnitude"
                ) from error
            named = re.search(r"derivative for (\S+) is not implemented|(@once_differentiable)", str(error))
            if named is None:
                raise
            operation = named[1] or f"a function marked {named[2]}"
            raise TombolaError(
                f"the score '{score}' needs a second derivative, which {operation} does not have; use "
                "grasp-first-order, snip, synflow, magnitude or prospr with gradient='first-order'"
            ) from error
