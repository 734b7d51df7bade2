"""The rows of charts and their tables: one dictionary for each mark, with accuracies in percent."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from tombola.evidence import Comparison, deciding_interval, settled
from tombola.report.arms import ArmResults, GatheredArms
from tombola.report.prose import share

Row = dict[str, Any]


def accuracy_row(arm: ArmResults, series: str) -> Row:
    """One arm as a point with its interval.

    Args:
        arm: the arm.
        series: the name under which the chart draws it.
    """
    mean, low, high = arm.accuracy
    return {
        "series": series,
        "method": arm.method,
        "density": arm.density,
        "kept": share(arm.density),
        "removed": share(1 - arm.density),
        "mean": finite(mean),
        "low": finite(low),
        "high": finite(high),
        "seeds": len(arm.results),
    }


def difference_rows(study: GatheredArms, density: float) -> list[Row]:
    """Every ticket and control of a density minus dense, in points of a share; without those that have no dense.

    The interval of a ticket with a verdict is the one of which an end decides.
    """
    arms = (arm for arm in study.arms if arm.method and arm.density == density)
    rows = (_difference_row(study, arm, own) for arm in arms if (own := study.difference(arm)) is not None)
    return [row for row in rows if row["mean"] is not None]


def spending_rows(study: GatheredArms) -> list[Row]:
    """Every method's tickets with the cost of search and training, in dense epochs; without those of unknown cost."""
    rows = []
    for method in study.methods:
        for arm in study.tickets(method):
            search, training = (finite(arm.cost(of, "dense_epochs")) for of in ("search", "training"))
            row = accuracy_row(arm, method)
            if search is not None and training is not None and search + training > 0 and row["mean"] is not None:
                rows.append(row | {"cost": search + training})
    return rows


def overview_rows(study: GatheredArms) -> list[Row]:
    """The tickets of all methods, without controls."""
    rows = (accuracy_row(arm, method) for method in study.methods for arm in study.tickets(method))
    return [row for row in rows if row["mean"] is not None]


def dense_row(study: GatheredArms, method: str) -> Row | None:
    """The dense network that a method's chart shows: the one with which its sparsest arm is compared."""
    arms = [arm for arm in study.arms if arm.method == method] or list(study.arms)
    dense = study.dense(arms[-1]) if arms else None
    row = None if dense is None else accuracy_row(dense, "dense")
    return row if row is not None and row["mean"] is not None else None


def layer_rows(study: GatheredArms, method: str) -> list[Row]:
    """The kept share in percent of each layer of a method's tickets, mean over seeds, in the network's order."""
    rows = []
    for arm in study.tickets(method):
        shares: dict[str, list[float]] = defaultdict(list)
        for result in arm.results:
            for layer, (count, size) in result.layers.items():
                shares[layer].append(count / size if size else 0.0)
        sizes = {layer: size for result in arm.results for layer, (_, size) in result.layers.items()}
        for layer, values in shares.items():
            value = 100 * math.fsum(values) / len(values)
            kept = share(arm.density)
            rows.append({"layer": layer, "size": sizes[layer], "density": kept, "kept": kept, "value": value})
    return rows


def curve_rows(study: GatheredArms, ticket: ArmResults, of: str = "validation_metric") -> list[Row]:
    """Validation accuracy in percent by epoch of a ticket, its dense network and its controls, mean over seeds.

    of: which one, as the history calls it; "robust_pgd" is that under attack.
    """
    arms = [arm for arm in study.arms if arm.method == ticket.method and arm.density == ticket.density]
    dense = study.dense(ticket)
    return [row for arm in [*([dense] if dense else []), *arms] for row in _curve(arm, of)]


def cost_rows(study: GatheredArms) -> list[Row]:
    """The cost of each search in dense epochs and seconds, mean over seeds."""
    return [
        {
            "label": f"{arm.method}, {share(arm.density)}",
            "method": arm.method,
            "kept": share(arm.density),
            "dense_epochs": finite(arm.cost("search", "dense_epochs")),
            "seconds": finite(arm.cost("search", "seconds")),
        }
        for method in study.methods
        for arm in study.tickets(method)
    ]


def saving_rows(study: GatheredArms) -> list[Row]:
    """What each method's tickets save of dense training, in percent."""
    return [
        {
            "label": f"{savings.subject}, {share(savings.density)}",
            "method": savings.subject,
            "kept": share(savings.density),
        }
        | {key: None if value is None else finite(100 * value) for key, value in savings.training.items()}
        for savings in study.saved
    ]


def finite(value: float | None) -> float | None:
    """The value as it is rounded everywhere, or None for NaN and infinities, which JSON cannot hold.

    Examples:
        >>> finite(0.5), finite(math.nan)
        (0.5, None)
    """
    return settled(value) if value is not None and math.isfinite(value) else None


def _difference_row(study: GatheredArms, arm: ArmResults, difference: Comparison) -> Row:
    verdict = study.verdict(arm) if arm.role == "ticket" else None
    ends = (difference.low, difference.high) if verdict is None else deciding_interval(verdict, difference)[:2]
    mean, low, high = (finite(difference.measure.scale * value) for value in (difference.mean, *ends))
    bounded = low is not None and high is not None
    row = accuracy_row(arm, arm.role) | {"seeds": len(difference.differences), "outcome": difference.outcome}
    return row | {"mean": mean, "low": low if bounded else None, "high": high if bounded else None}


def _curve(arm: ArmResults, of: str) -> list[Row]:
    values: dict[float, list[float]] = defaultdict(list)
    for result in arm.results:
        for row in result.history:
            if "epoch" in row and math.isfinite(row.get(of, math.nan)):
                values[row["epoch"]].append(row[of])
    return [
        {
            "series": arm.role,
            "epoch": epoch,
            "value": settled(arm.measure.scale * math.fsum(v) / len(v)),
            "seeds": len(v),
        }
        for epoch, v in sorted(values.items())
    ]
