"""Attacks in the maximum norm: images within ε of given ones, on which a network's loss is high."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.scores import Loss
from tombola.structure import in_mode
from tombola.training import ascended, own_randomness

Network = Callable[[Tensor], Any]
Size = float | Tensor
"""One number, or a tensor that broadcasts against the images, as (channels, 1, 1) for one number per channel."""


def fgsm(
    network: Network, images: Tensor, targets: Any, loss: Loss, epsilon: Size, bounds: tuple[Size, Size]
) -> Tensor:
    """Move images by ε along the sign of the loss's gradient (FGSM; Goodfellow et al., ICLR 2015).

    Args:
        network: see `pgd`, like the other arguments.
        images: floats within the bounds.
        targets: what the loss compares the outputs with.
        loss: of outputs and targets.
        epsilon: how far each pixel moves, on the images' own scale.
        bounds: (lowest, highest) value of a pixel, on the same scale.

    Returns:
        The attacked images.

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
    """Move images up the loss in steps, within ε of their start (PGD; Madry et al., ICLR 2018).

    Sizes are on the images' own scale: for normalised images they are normalised too. The network and the global
    random state are left unchanged.

    Args:
        network: a module, which is attacked in evaluation mode, or any callable.
        images: floats within the bounds.
        targets: what the loss compares the outputs with.
        loss: of outputs and targets.
        epsilon: how far each pixel may move.
        bounds: (lowest, highest) value of a pixel.
        steps: how many steps.
        step: the length of a step; 2.5·ε / steps if None, so that every point of the ball can be reached.
        random_start: start at a uniform random point of the ball, not at the images.
        seed: of the random start, and of randomness in the network.

    Returns:
        The images after the last step.

    Raises:
        TombolaError: the images are not floats or lie outside their bounds, ε is negative, or there is no step.

    Examples:
        >>> images, targets = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, -1.0]])
        >>> pgd(lambda x: x, images, targets, lambda outputs, targets: -(outputs * targets).sum(), 0.1, (0.0, 1.0))
        tensor([[0.4000, 0.6000]])
    """
    reach, low, high = (_like(images, size) for size in (epsilon, *bounds))
    _check(images, reach, low, high, steps)
    images = images.detach()
    lowest, highest = (images - reach).maximum(low), (images + reach).minimum(high)
    stride = 2.5 * reach / steps if step is None else _like(images, step)
    with own_randomness(images.device, seed), in_mode(network, "eval"), torch.enable_grad():
        attacked = images
        if random_start:
            # Drawn on the CPU, so that all devices start at the same point.
            attacked = (images + reach * (2 * torch.rand(images.shape).to(images) - 1)).clamp(lowest, highest)
        return ascended(network, attacked, targets, loss, lowest, highest, stride, steps)


def _like(images: Tensor, size: Size) -> Tensor:
    return torch.as_tensor(size, dtype=images.dtype, device=images.device)


def _check(images: Tensor, reach: Tensor, low: Tensor, high: Tensor, steps: int) -> None:
    if not images.is_floating_point():
        raise TombolaError(f"an attack moves images by fractions, and these are {images.dtype}; give them as floats")
    if (reach < 0).any() or steps < 1:
        raise TombolaError(f"an attack needs ε of at least 0 and at least one step, not {reach.min():g} and {steps}")
    rounding = 1e-4 * (high - low)  # normalisation may round an image's black or white beyond the bounds
    if not ((images >= low - rounding) & (images <= high + rounding)).all():
        raise TombolaError(
            f"the images reach from {images.min():.3g} to {images.max():.3g}, outside their bounds; "
            "give bounds on the images' own scale, after any normalisation"
        )
