"""What a cut does to a network's outputs: batch norms' statistics taken anew, and accuracy before and after."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores import Batches, Forward, batch_size, suited
from tombola.structure import BATCH_NORMS

Metric = Callable[[Any, Any], Tensor]
"""The mean metric of a batch, from outputs and targets."""

FALL = 0.01
"""From this loss of the metric on, it is warned of."""


class AccuracyWarning(UserWarning):
    """A smaller network is less accurate than the whole one was before anything was removed."""


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Batches, forward: Forward) -> None:
    """Take the statistics of all batch norms anew, in place, as the mean over some batches; all else stays.

    A norm's statistics are those of the network before the cut: what removed channels no longer add shifts them.

    Args:
        model: the network; the modes of its modules are as before afterwards.
        batches: (inputs, targets); some hundred samples are enough.
        forward: calls the model on inputs.

    Raises:
        TombolaError: if there are no batches.
    """
    norms = [own for own in model.modules() if isinstance(own, BATCH_NORMS) and own.running_mean is not None]
    with _training_alone(model, norms):
        count = 0
        for inputs, _ in batches:
            forward(model, suited(inputs, model))
            count += 1
    if norms and not count:
        raise TombolaError("recalibrate= has no batch; give [(inputs, targets), …] of a few hundred training samples")


@contextmanager
def _training_alone(model: nn.Module, norms: list[Any]) -> Generator[None]:
    """Only the norms in training mode, with statistics that begin anew and are means over all calls."""
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def mean_metric(model: nn.Module, data: Batches, metric: Metric, forward: Forward) -> float:
    """The mean metric over some batches in evaluation mode; modes are restored.

    Args:
        model: the network.
        data: (inputs, targets).
        metric: of outputs and targets.
        forward: calls the model on inputs.
    """
    modes = {module: module.training for module in model.modules()}
    total, count = 0.0, 0
    model.eval()
    try:
        for inputs, targets in data:
            outputs = forward(model, suited(inputs, model))
            size = batch_size((inputs, targets))
            total += float(metric(outputs, targets.to(next(model.parameters()).device))) * size
            count += size
    finally:
        for module, training in modes.items():
            module.training = training
    if not count:
        raise TombolaError("data= has no batch; give [(inputs, targets), …] of a validation split")
    return total / count


def correct(outputs: Any, targets: Tensor) -> Tensor:
    """The share of outputs whose largest entry is the target's."""
    return (outputs.argmax(-1) == targets).float().mean()


def warn_of_fall(before: float, after: float, lower: bool = False) -> None:
    """Warn if the metric got worse with the cut.

    Args:
        before: of the network before anything was removed.
        after: of the smaller one.
        lower: a smaller metric is better.
    """
    if (after - before if lower else before - after) >= FALL:
        is_share = min(before, after) >= 0 and max(before, after) <= 1 and not lower
        first, then = (f"{value:.1%}" if is_share else f"{value:.4g}" for value in (before, after))
        warnings.warn(
            f"the metric {'rose' if lower else 'fell'} from {first} to {then} with what the mask removes; train the "
            "smaller network on, give recalibrate= some training batches, or remove less",
            AccuracyWarning,
            stacklevel=3,
        )
