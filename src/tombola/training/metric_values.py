"""What the values of a metric are: shares of 1, or other numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tombola.registry import METRICS, lower_is_better
from tombola.registry.metric_direction import words_of

RATES = frozenset({"cer", "rate", "wer"})
"""Words in names of errors that are shares of 1; other errors are numbers."""


def registered(metric: Any) -> str | None:
    """The registry's name of a metric; None if it is the user's own."""
    for name in METRICS.entries:
        known = METRICS[name]
        if known is metric or (type(known) is type(metric) and known == metric):
            return name
    return None


def are_shares(metric: Any, values: Sequence[float], lower: bool | None = None) -> bool:
    """Whether values of a metric are shares of 1, which are written in percent.

    A metric of Tombola's is as its entry says. One of the user's is a share if all its values are, and it is no error
    but a rate.

    Args:
        metric: a function of outputs and targets, or an object that is called with them.
        values: some of its values.
        lower: whether smaller values are better; None goes by the metric.
    """
    if not all(0 <= value <= 1 for value in values):
        return False
    if (known := registered(metric)) is not None:
        return METRICS.entry(known).unit != "number"
    is_error = bool(lower_is_better(metric)) if lower is None else lower
    return not is_error or not RATES.isdisjoint(words_of(metric))


def metric_text(metric: Any, value: float, decimals: int = 2) -> str:
    """A value of a metric: in percent if it is a share.

    Examples:
        >>> from torch import nn
        >>> from tombola.registry import METRICS
        >>> metric_text(METRICS["accuracy"], 0.913, 1), metric_text(nn.MSELoss(), 0.91347)
        ('91.3%', '0.9135')
    """
    return f"{value:.{decimals}%}" if are_shares(metric, [value]) else f"{value:.4g}"
