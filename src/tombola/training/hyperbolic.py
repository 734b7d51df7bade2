"""HAM: a multiplicative step after each step of any optimizer."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from tombola.errors import TombolaError

Stepped = TypeVar("Stepped", bound=Optimizer)

LARGEST_STEP = 5.0
"""The most by which the logarithm of a weight changes in a step."""
LARGEST_NORM = 1000.0
"""The norm to which a tensor is scaled back if it comes out longer."""


def ham(optimizer: Stepped, alpha: float = 200.0, beta: float = 1e-3) -> Stepped:
    """Let each step of an optimizer be followed by a hyperbolic one (HAM: Jacobs, Burkholz et al., ICLR 2026).

    After a step at learning rate η, each weight w with the gradient g becomes w · exp(−η · (α · sign(w) · g + β)), with
    the exponent within ±5. Weights of 0 stay 0, so that a mask holds. Only tensors of two and more dimensions take
    part: neither biases nor the scales of norms. In a recipe it is `ham_alpha` and `ham_beta`.

    Args:
        optimizer: any of torch. Gradients are clipped before its step.
        alpha: α. With small networks try 10 and 50 too: η · α · |g| should be of 0.001 to 0.1.
        beta: β, a decay like that of an L1 penalty. With alpha=0 it acts alone, as a control.

    Returns:
        The same optimizer.

    Raises:
        TombolaError: if a number is negative or not finite.

    Examples:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 0.0]]))
        >>> optimizer = ham(torch.optim.SGD([weight], lr=0.1), alpha=1.0, beta=0.0)
        >>> weight.grad = torch.tensor([[0.5, 0.0]])
        >>> optimizer.step()
        >>> [round(value, 4) for value in weight[0].tolist()]  # 0.95 · exp(−0.05)
        [0.9037, 0.0]
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not (math.isfinite(value) and value >= 0):
            raise TombolaError(f"HAM's {name} is {value}; give a number of at least 0")
    optimizer.register_step_post_hook(lambda stepped, *_: _hyperbolic_step(stepped, alpha, beta))
    return optimizer


@torch.no_grad()
def _hyperbolic_step(optimizer: Optimizer, alpha: float, beta: float) -> None:
    for group in optimizer.param_groups:
        weights = [p for p in group["params"] if p.grad is not None and p.ndim > 1 and p.is_floating_point()]
        if weights:
            _grow(weights, group["lr"], alpha, beta)


def _grow(weights: list[Any], lr: float | Tensor, alpha: float, beta: float) -> None:
    grown = [_grown(weight, weight.grad, lr, alpha, beta) for weight in weights]
    norms = torch.stack([tensor.norm().float() for tensor in grown])
    if norms.device.type == "cpu" and float(norms.max()) <= LARGEST_NORM:  # False of NaN
        for weight, tensor in zip(weights, grown, strict=True):
            weight.copy_(tensor)
        return
    scales = (LARGEST_NORM / norms).clamp(max=1.0)
    for weight, tensor, norm, scale in zip(weights, grown, norms, scales, strict=True):
        weight.copy_(torch.where(norm.isnan(), weight, tensor * scale.to(tensor.dtype)))


def _grown(weight: Tensor, gradient: Tensor, lr: float | Tensor, alpha: float, beta: float) -> Tensor:
    exponent = weight.sign().mul_(gradient).mul_(-lr * alpha).add_(-lr * beta)
    return exponent.clamp_(-LARGEST_STEP, LARGEST_STEP).exp_().mul_(weight)
