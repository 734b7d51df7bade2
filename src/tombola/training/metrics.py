"""Metrics that Tombola brings; larger is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tombola.training.losses import next_tokens


class SummedMetric:
    """A metric of a whole split that is no mean over its batches: `sums` of each batch are added, then `of` them.

    A subclass is a dataclass of its settings. Called with outputs and targets, it gives the metric of these alone.
    """

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What is added up over batches."""
        raise NotImplementedError

    def of(self, sums: Tensor) -> Tensor:
        """The metric, from the sums over all batches."""
        raise NotImplementedError

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.of(self.sums(outputs, targets))


class Tally:
    """A metric over batches, one after another.

    Args:
        metric: of outputs and targets; its mean over samples is taken, unless it is a `SummedMetric`.
        device: where outputs are.

    Examples:
        >>> tally = Tally(accuracy, torch.device("cpu"))
        >>> tally.add(torch.eye(2), torch.tensor([0, 0]), 2)
        >>> tally.value(2)
        0.5
    """

    def __init__(self, metric: Callable[[Any, Any], Any], device: torch.device) -> None:
        self._summed = metric if isinstance(metric, SummedMetric) else None
        self._metric = metric
        self._sums = torch.zeros((), device=device)  # on the device, which is waited for once at the end

    def add(self, outputs: Any, targets: Any, size: int) -> None:
        """Count a batch of `size` samples."""
        if self._summed is None:
            self._sums = self._sums + self._metric(outputs, targets) * size
        else:
            self._sums = self._sums + self._summed.sums(outputs, targets)

    def value(self, count: int) -> float:
        """The metric of `count` samples; 0 of none."""
        if self._summed is None or not count:
            return float(self._sums) / max(count, 1)
        return float(self._summed.of(self._sums))


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose largest output is that of the target class.

    Args:
        outputs: (samples, classes).
        targets: class numbers, (samples,).

    Examples:
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        tensor(0.5000)
    """
    return (outputs.argmax(-1) == targets).float().mean()


@dataclass(frozen=True)
class TopAccuracy:
    """Share of samples whose target class is among the largest outputs.

    Args:
        k: how many outputs count; all where there are fewer.
    """

    k: int = 5

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The share; outputs: (samples, classes), targets: class numbers, (samples,)."""
        best = outputs.topk(min(self.k, outputs.shape[-1])).indices
        return (best == targets.unsqueeze(-1)).any(-1).float().mean()


def binary_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose logit is positive for target 1, or not positive for target 0.

    Args:
        outputs: the logit of class 1, (samples, 1) or (samples,).
        targets: 0 or 1, (samples,).
    """
    return ((outputs.squeeze(-1) > 0) == targets.bool()).float().mean()


def label_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of labels whose logit is positive for target 1, or not positive for target 0.

    Args:
        outputs: the logit of each label, (samples, labels).
        targets: 0 or 1, of the same shape.
    """
    return ((outputs > 0) == targets.bool()).float().mean()


@dataclass(frozen=True)
class MicroF1(SummedMetric):
    """F1 of all labels of all samples together: 2 · true positives over the labels that are 1, said and asked.

    Examples:
        >>> MicroF1()(torch.tensor([[1.0, -1.0, 1.0]]), torch.tensor([[1, 1, 0]]))
        tensor(0.5000)
    """

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """True positives, and labels said and asked; outputs: logits, (samples, labels), targets: 0 or 1."""
        said, asked = outputs > 0, targets.bool()
        return torch.stack([(said & asked).sum(), said.sum() + asked.sum()])

    def of(self, sums: Tensor) -> Tensor:
        right, labels = sums.float().unbind()
        return 2 * right / labels.clamp(min=1)


@dataclass(frozen=True)
class R2(SummedMetric):
    """Coefficient of determination: 1 − squared error over the targets' variance, mean over the outputs that vary.

    Examples:
        >>> R2()(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[1.0], [2.0], [3.0]]))
        tensor(0.5000)
    """

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Numbers, their sums, squares and squared errors, in float64; outputs and targets: (samples, …)."""
        exact = targets.double()  # the variance is the difference of two large numbers
        errors = (outputs.double() - exact).square().sum(0)
        return torch.stack([torch.full_like(errors, len(exact)), exact.sum(0), exact.square().sum(0), errors])

    def of(self, sums: Tensor) -> Tensor:
        count, total, squares, errors = sums.unbind()
        spread = squares - total.square() / count
        return (1 - errors / spread)[spread > 0].mean().float()


@dataclass(frozen=True)
class Pearson(SummedMetric):
    """Pearson's correlation of outputs and targets, from −1 to 1, mean over the outputs that vary.

    Examples:
        >>> Pearson()(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[3.0], [5.0], [9.0]]))
        tensor(1.)
    """

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Numbers, sums, squares and products, in float64; outputs and targets: (samples, …)."""
        said, true = outputs.double(), targets.double()
        parts = (said, true, said.square(), true.square(), said * true)
        return torch.stack([torch.full_like(true[0], len(true)), *(part.sum(0) for part in parts)])

    def of(self, sums: Tensor) -> Tensor:
        count, said, true, said_squares, true_squares, products = sums.unbind()
        spreads = [(said_squares - said.square() / count), (true_squares - true.square() / count)]
        varies = (spreads[0] > 0) & (spreads[1] > 0)
        together = (products - said * true / count)[varies]
        found = together / (spreads[0] * spreads[1])[varies].sqrt()
        return found.mean().float() if varies.any() else torch.zeros(())


def negative_mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Minus the mean absolute error.

    Args:
        outputs: numbers.
        targets: numbers of the same shape.
    """
    return -(outputs - targets).abs().mean()


@dataclass(frozen=True)
class TokenAccuracy(SummedMetric):
    """Share of tokens whose largest output is that of the target.

    Args:
        shift: True where the targets are the inputs' own tokens, as in `NextToken`.
        ignore_index: the target that is left out.
    """

    shift: bool = False
    ignore_index: int = -100

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Tokens that are right, and all; outputs: (samples, length, vocabulary), targets: (samples, length)."""
        logits, tokens = next_tokens(outputs, targets, self.shift)
        counted = tokens != self.ignore_index
        return torch.stack([((logits.argmax(-1) == tokens) & counted).sum(), counted.sum()])

    def of(self, sums: Tensor) -> Tensor:
        right, tokens = sums.float().unbind()
        return right / tokens.clamp(min=1)


@dataclass(frozen=True)
class NegativePerplexity(SummedMetric):
    """Minus the exponential of the mean cross-entropy of the target tokens.

    Args:
        shift: True where the targets are the inputs' own tokens, as in `NextToken`.
        ignore_index: the target that is left out.
    """

    shift: bool = False
    ignore_index: int = -100

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of cross-entropies, and of tokens; outputs: (samples, length, vocabulary), targets: their tokens."""
        logits, tokens = next_tokens(outputs, targets, self.shift)
        losses = F.cross_entropy(
            logits.flatten(0, 1).float(), tokens.flatten(), ignore_index=self.ignore_index, reduction="sum"
        )
        return torch.stack([losses.double(), (tokens != self.ignore_index).sum().double()])

    def of(self, sums: Tensor) -> Tensor:
        losses, tokens = sums.unbind()
        return -(losses / tokens.clamp(min=1)).exp().float()
