"""Attacks in the maximum norm: images within ε of the given ones on which a network's loss is high."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.scores import Loss
from tombola.structure import in_mode
from tombola.training import own_randomness

Network = Callable[[Tensor], Any]
Size = float | Tensor
"""One number, or a tensor that broadcasts against the images: (channels, 1, 1) for one number a channel."""


def fgsm(
    network: Network, images: Tensor, targets: Any, loss: Loss, epsilon: Size, bounds: tuple[Size, Size]
) -> Tensor:
    """The images moved by ε along the sign of the loss's gradient (FGSM; Goodfellow et al., ICLR 2015).

    Arguments and result are those of `pgd`.

    Examples:
        >>> images, targets = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, -1.0]])
        >>> fgsm(lambda x: x, images, targets, lambda outputs, targets: -(outputs * targets).sum(), 0.1, (0.0, 1.0))
        tensor([[0.4000, 0.6000]])
    """
    return pgd(network, images, targets, loss, epsilon, bounds, steps=1, step=epsilon, random_start=False)


def pgd(
    network: Network,
    images: Tensor,
    targets: Any,
    loss: Loss,
    epsilon: Size,
    bounds: tuple[Size, Size],
    steps: int = 10,
    step: Size | None = None,
    random_start: bool = True,
    seed: int = 0,
) -> Tensor:
    """The last of `steps` steps up the loss, within ε of the images and the bounds (PGD; Madry et al., ICLR 2018).

    ε, bounds (low, high) and step (2.5·ε / steps if None) are on the images' own scale: where these are normalised,
    so are they. The start is uniform in the ball, from the seed. A module is attacked in eval mode, any other
    callable as it is; parameters, gradients, buffers, modes and the global random state are as before the call.
    """
    reach, low, high = (_like(images, size) for size in (epsilon, *bounds))
    _check(images, reach, low, high, steps)
    images = images.detach()
    lowest, highest = (images - reach).maximum(low), (images + reach).minimum(high)
    stride = 2.5 * reach / steps if step is None else _like(images, step)
    with own_randomness(images.device, seed), in_mode(network, "eval"), torch.enable_grad():
        attacked = images
        if random_start:
            attacked = (images + reach * (2 * torch.rand(images.shape).to(images) - 1)).clamp(lowest, highest)
        for _ in range(steps):
            attacked.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(network(attacked), targets).sum(), attacked)
            attacked = (attacked.detach() + stride * gradient.sign()).clamp(lowest, highest)
    return attacked


def _like(images: Tensor, size: Size) -> Tensor:
    return torch.as_tensor(size, dtype=images.dtype, device=images.device)


def _check(images: Tensor, reach: Tensor, low: Tensor, high: Tensor, steps: int) -> None:
    if not images.is_floating_point():
        raise TombolaError(f"an attack moves images by fractions, and these are {images.dtype}; give them as floats")
    if (reach < 0).any() or steps < 1:
        raise TombolaError(f"an attack needs ε of at least 0 and at least one step, not {reach.min():g} and {steps}")
    rounding = 1e-4 * (high - low)
    if not ((images >= low - rounding) & (images <= high + rounding)).all():
        raise TombolaError(
            f"the images reach from {images.min():.3g} to {images.max():.3g}, outside their bounds; "
            "give bounds on the images' own scale, after any normalisation"
        )
