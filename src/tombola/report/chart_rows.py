"""The rows of charts and their tables: one dictionary for each mark, with accuracies in percent."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from tombola.evidence import ACCURACY, Measure
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
        "density": arm.density,
        "kept": share(arm.density),
        "removed": share(1 - arm.density),
        "mean": finite(mean),
        "low": finite(low),
        "high": finite(high),
        "seeds": len(arm.results),
    }


def method_rows(study: GatheredArms, method: str) -> list[Row]:
    """A method's tickets and controls; arms whose accuracy is not a number are left out."""
    rows = (accuracy_row(arm, arm.role) for arm in study.arms if arm.method == method)
    return [row for row in rows if row["mean"] is not None]


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
            rows.append({"layer": layer, "size": sizes[layer], "density": share(arm.density), "value": value})
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
            "dense_epochs": finite(arm.cost("search", "dense_epochs")),
            "seconds": finite(arm.cost("search", "seconds")),
        }
        for method in study.methods
        for arm in study.tickets(method)
    ]


def saving_rows(study: GatheredArms) -> list[Row]:
    """What each method's tickets save of dense training, in percent."""
    return [
        {"label": f"{savings.subject}, {share(savings.density)}"}
        | {key: None if value is None else finite(100 * value) for key, value in savings.training.items()}
        for savings in study.saved
    ]


def finite(value: float | None) -> float | None:
    """The value, or None for NaN and infinities, which JSON cannot hold.

    Examples:
        >>> finite(0.5), finite(math.nan)
        (0.5, None)
    """
    return value if value is not None and math.isfinite(value) else None


def bounds(rows: Iterable[Row | None], measure: Measure = ACCURACY) -> tuple[float, float]:
    """The range of an axis, for a share in percent.

    It shows every mean. Wide intervals are cut: they may stretch the range on each side by half of that of the means,
    or half a point if that is more, so that one noisy arm does not flatten the others.

    Args:
        rows: with mean, low and high; None stands for an arm that is not there.
        measure: what the numbers are.
    """
    known = [row for row in rows if row is not None]
    if not known:
        return 0.0, 100.0
    means = [row["mean"] for row in known]
    bottom, top = min(means), max(means)
    least = 0.5 if measure.share else 0.01 * max(abs(top), abs(bottom))
    stretch = max(0.5 * (top - bottom), least)
    lows = [row["low"] for row in known if row["low"] is not None]
    highs = [row["high"] for row in known if row["high"] is not None]
    low, high = max(min([bottom, *lows]), bottom - stretch), min(max([top, *highs]), top + stretch)
    margin = max(0.06 * (high - low), least / 5)
    return low - margin, high + margin


def _curve(arm: ArmResults, of: str) -> list[Row]:
    scale = 100 if arm.measure.share else 1
    values: dict[float, list[float]] = defaultdict(list)
    for result in arm.results:
        for row in result.history:
            if "epoch" in row and math.isfinite(row.get(of, math.nan)):
                values[row["epoch"]].append(row[of])
    return [
        {"series": arm.role, "epoch": epoch, "value": scale * math.fsum(v) / len(v), "seeds": len(v)}
        for epoch, v in sorted(values.items())
    ]
