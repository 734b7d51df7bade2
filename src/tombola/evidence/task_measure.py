"""What a task's metric is: its name, which way is better, whether it is a share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from tombola.evidence.measure import ACCURACY, Measure
from tombola.registry import lower_is_better
from tombola.registry.metric_direction import name_of
from tombola.training import Task, are_shares, metric_of, registered

Better = Literal["lower", "higher"]
"""Which values of a metric are better."""


def measure_of(task: Task, values: Sequence[float], asked: Measure | Better | None = None) -> Measure:
    """What the task's metric is.

    A metric of Tombola's is as its entry says. One of the user's is better the lower it is if it says so itself or has
    the name of an error, and a share if all its values are.

    Args:
        task: gives the metric.
        values: some results.
        asked: what the user says that it is, or which of its values are better.
    """
    if isinstance(asked, Measure):
        return replace(asked, share=asked.share and all(0 <= value <= 1 for value in values))
    metric, known = metric_of(task), registered(metric_of(task))
    if known is not None:
        own = ACCURACY if known == ACCURACY.name else Measure(known, share=are_shares(metric, values))
        return replace(own, lower=asked == "lower")
    lower = asked == "lower" if asked else bool(lower_is_better(metric))
    name = name_of(metric).replace("_", "-") or "metric"
    return Measure(name, lower=lower, share=are_shares(metric, values, lower))
