"""Metrics that Tombola brings; larger is better."""

from __future__ import annotations

from torch import Tensor


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose largest output is that of the target class.

    Args:
        outputs: (samples, classes).
        targets: class numbers, (samples,).

    Examples:
        >>> import torch
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        tensor(0.5000)
    """
    return (outputs.argmax(-1) == targets).float().mean()


def binary_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose logit is positive for target 1, or not positive for target 0.

    Args:
        outputs: the logit of class 1, (samples, 1) or (samples,).
        targets: 0 or 1, (samples,).
    """
    return ((outputs.squeeze(-1) > 0) == targets.bool()).float().mean()
