"""Metrics of classes that are counted over a whole split: each is a reading of its confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.training.metrics import SummedMetric


def confusion(outputs: Tensor, targets: Tensor, axis: int, ignore_index: int) -> Tensor:
    """Count how often each class was taken for each.

    Args:
        outputs: the classes lie in `axis`.
        targets: class numbers, of the outputs' shape without that axis.
        axis: of the classes.
        ignore_index: the target that is left out.

    Returns:
        (classes, classes): rows are targets, columns are outputs.

    Examples:
        >>> confusion(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1]), -1, -100)
        tensor([[0, 0],
                [1, 1]])
    """
    classes = outputs.shape[axis]
    counted = targets != ignore_index
    pairs = targets.where(counted, 0) * classes + outputs.argmax(axis)
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=outputs.device)
    return counts.index_add(0, pairs.flatten().long(), counted.flatten().long()).unflatten(0, (classes, classes))


def _mean_over_classes(parts: Tensor, wholes: Tensor) -> Tensor:
    """The mean share over the classes that have a whole."""
    shares = parts.float() / wholes.clamp(min=1)
    return shares.sum() / (wholes > 0).sum().clamp(min=1)


@dataclass(frozen=True)
class BalancedAccuracy(SummedMetric):
    """Share of each class's samples that are found, mean over the classes that there are.

    Args:
        ignore_index: the target that is left out.

    Examples:
        >>> outputs, targets = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> BalancedAccuracy()(outputs, targets)
        tensor(0.5000)
    """

    ignore_index: int = -100

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The confusion matrix; outputs: (samples, classes), targets: class numbers, (samples,)."""
        return confusion(outputs, targets, -1, self.ignore_index)

    def of(self, sums: Tensor) -> Tensor:
        return _mean_over_classes(sums.diagonal(), sums.sum(1))


@dataclass(frozen=True)
class MacroF1(BalancedAccuracy):
    """F1 of each class, mean over the classes that there are or that were said.

    Args:
        ignore_index: the target that is left out.
    """

    def of(self, sums: Tensor) -> Tensor:
        return _mean_over_classes(2 * sums.diagonal(), sums.sum(0) + sums.sum(1))


@dataclass(frozen=True)
class Matthews(BalancedAccuracy):
    """Matthews's correlation of the classes said and true, from −1 to 1; 0 where all are said to be of one class.

    Args:
        ignore_index: the target that is left out.

    Examples:
        >>> outputs, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), torch.tensor([0, 1, 0])
        >>> Matthews()(outputs, targets)
        tensor(1.)
    """

    def of(self, sums: Tensor) -> Tensor:
        counts = sums.double()
        true, said, total = counts.sum(1), counts.sum(0), counts.sum()
        together = counts.diagonal().sum() * total - (true * said).sum()
        spread = (total.square() - true.square().sum()) * (total.square() - said.square().sum())
        return (together / spread.clamp(min=1).sqrt()).float()


@dataclass(frozen=True)
class PixelAccuracy(SummedMetric):
    """Share of positions whose largest output is that of the target class.

    Args:
        ignore_index: the target that is left out.
    """

    ignore_index: int = -100

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Positions that are right, and all; outputs: (samples, classes, …), targets: class numbers, (samples, …)."""
        counted = targets != self.ignore_index
        return torch.stack([((outputs.argmax(1) == targets) & counted).sum(), counted.sum()])

    def of(self, sums: Tensor) -> Tensor:
        right, positions = sums.float().unbind()
        return right / positions.clamp(min=1)


@dataclass(frozen=True)
class MeanIoU(SummedMetric):
    """Intersection over union of the positions of each class, mean over the classes that there are or that were said.

    Args:
        ignore_index: the target that is left out.

    Examples:
        >>> outputs = torch.tensor([[[2.0, 2.0, 0.0], [0.0, 0.0, 1.0]]])  # one sample, two classes, three positions
        >>> MeanIoU()(outputs, torch.tensor([[0, 1, 1]]))
        tensor(0.5000)
    """

    ignore_index: int = -100

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The confusion matrix; outputs: (samples, classes, …), targets: class numbers, (samples, …)."""
        return confusion(outputs, targets, 1, self.ignore_index)

    def of(self, sums: Tensor) -> Tensor:
        both = sums.diagonal()
        return _mean_over_classes(both, sums.sum(0) + sums.sum(1) - both)
