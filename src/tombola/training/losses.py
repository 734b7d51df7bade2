"""Losses that Tombola brings; larger is worse."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy.

    Args:
        outputs: the logit of class 1, (samples, 1) or (samples,).
        targets: 0 or 1, (samples,).
    """
    return F.binary_cross_entropy_with_logits(outputs.squeeze(-1), targets.to(outputs.dtype))


def multi_label_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy over samples and labels.

    Args:
        outputs: the logit of each label, (samples, labels).
        targets: 0 or 1, of the same shape.
    """
    return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy with class weights, for classification and for segmentation.

    Args:
        class_weights: the weight of each class; all 1 if None. The mean is weighted too, as in torch.
        label_smoothing: share of each target that is spread over all classes, from 0 to 1.
        ignore_index: the target that is left out.

    Examples:
        >>> loss = CrossEntropy(class_weights=(1.0, 3.0))
        >>> loss(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))
        tensor(1.6269)
    """

    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    ignore_index: int = -100

    def __call__(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float | None = None) -> Tensor:
        """The mean loss.

        Args:
            outputs: (samples, classes, …).
            targets: class numbers, (samples, …).
            label_smoothing: in place of the loss's own, as a recipe asks for it.

        Raises:
            TombolaError: there are not as many weights as classes.
        """
        weights = None
        if self.class_weights is not None:
            if len(self.class_weights) != outputs.shape[1]:
                raise TombolaError(
                    f"the loss has {len(self.class_weights)} class_weights, but the network has {outputs.shape[1]} "
                    "outputs; give one weight a class"
                )
            weights = torch.tensor(self.class_weights, dtype=outputs.dtype).to(outputs.device, non_blocking=True)
        smoothing = self.label_smoothing if label_smoothing is None else label_smoothing
        return F.cross_entropy(
            outputs, targets, weight=weights, ignore_index=self.ignore_index, label_smoothing=smoothing
        )


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy of the next token, mean over tokens.

    Args:
        shift: True where the targets are the inputs' own tokens, so that the output at a place is for the target after
            it; False where the targets are moved already.
        ignore_index: the target that is left out, as that of padding.

    Examples:
        >>> outputs = torch.eye(3)[None] * 99  # the next token of 0 is said to be 0, that of 1 to be 1
        >>> NextToken()(outputs, torch.tensor([[0, 1, 2]])), NextToken(shift=True)(outputs, torch.tensor([[9, 0, 1]]))
        (tensor(0.), tensor(0.))
    """

    shift: bool = False
    ignore_index: int = -100

    def __call__(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """The mean loss.

        Args:
            outputs: (samples, length, vocabulary).
            targets: token numbers, (samples, length).
            label_smoothing: share of each target that is spread over all tokens, from 0 to 1.
        """
        logits, tokens = next_tokens(outputs, targets, self.shift)
        return F.cross_entropy(
            logits.flatten(0, 1), tokens.flatten(), ignore_index=self.ignore_index, label_smoothing=label_smoothing
        )


def next_tokens(outputs: Tensor, targets: Tensor, shift: bool) -> tuple[Tensor, Tensor]:
    """The outputs that have a next token, and that token.

    Args:
        outputs: (samples, length, …).
        targets: token numbers, (samples, length).
        shift: whether the targets are the inputs' own tokens.
    """
    return (outputs[:, :-1], targets[:, 1:]) if shift else (outputs, targets)


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance between outputs and targets, mean over samples.

    Args:
        outputs: (samples, outputs).
        targets: numbers of the same shape, or class numbers, which become one-hot vectors.

    Raises:
        TombolaError: for targets that do not fit.
    """
    return (outputs - as_outputs(targets, outputs)).square().sum() / (2 * len(outputs))


def as_outputs(targets: Tensor, outputs: Tensor) -> Tensor:
    """Bring targets into the shape of a network's outputs, in float32 or better.

    Args:
        targets: numbers in the shape of the outputs, which stay as they are; one number a sample, for a single output;
            or class numbers, which become one-hot vectors.
        outputs: (…, classes).

    Raises:
        TombolaError: for targets that do not fit.

    Examples:
        >>> as_outputs(torch.tensor([1, 0]), torch.zeros(2, 3))
        tensor([[0., 1., 0.],
                [1., 0., 0.]])
    """
    single = torch.promote_types(outputs.dtype, torch.float32)
    if targets.shape == outputs.shape:
        return targets.to(single)
    *samples, classes = outputs.shape
    if list(targets.shape) != samples or (targets.is_floating_point() and classes > 1):
        raise TombolaError(
            f"targets of shape {tuple(targets.shape)} do not fit outputs of shape {tuple(outputs.shape)}; give class "
            "numbers, or as many numbers a sample as there are outputs"
        )
    if classes == 1:
        return targets.unsqueeze(-1).to(single)
    try:
        return F.one_hot(targets.long(), classes).to(single)
    except RuntimeError:
        check_classes(targets, classes)
        raise


def check_classes(targets: Tensor, classes: int) -> None:
    """Check class numbers against the number of outputs; on a GPU torch would not say which one is wrong.

    Args:
        targets: class numbers.
        classes: how many outputs there are.

    Raises:
        TombolaError: naming the smallest and the largest class, if the outputs have no place for one of them.
    """
    low, high = map(int, targets.aminmax())
    if low < 0 or high >= classes:
        raise TombolaError(
            f"there are classes from {low} to {high}, but the network has {classes} outputs; number classes from 0 to "
            f"{classes - 1}"
        )


def smoothed(loss: Callable[[Any, Any], Tensor], smoothing: float) -> Callable[[Any, Any], Tensor]:
    """Give a loss label smoothing.

    Args:
        loss: of outputs and targets; it must take `label_smoothing` unless that is 0.
        smoothing: from 0 to 1.

    Returns:
        A loss of outputs and targets.

    Raises:
        TombolaError: if the loss does not take it.
    """
    if not smoothing:
        return loss
    check_smoothing(loss, smoothing)
    return lambda outputs, targets: loss(outputs, targets, label_smoothing=smoothing)  # ty: ignore[unknown-argument]


def check_smoothing(loss: Callable[[Any, Any], Tensor], smoothing: float) -> None:
    """TombolaError unless a loss takes label smoothing as an argument, or there is none to take."""
    if not smoothing:
        return
    called = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        inspect.signature(called).bind(None, None, label_smoothing=smoothing)
    except ValueError:  # a callable written in C may not say what it accepts
        return
    except TypeError as error:
        name = getattr(loss, "__name__", type(loss).__name__)
        raise TombolaError(
            f"the recipe's label_smoothing is {smoothing:g}, and the loss '{name}' does not take it as an argument; "
            "set it to 0 and give a loss that smooths by itself, as nn.CrossEntropyLoss(label_smoothing=0.1)"
        ) from error
