"""Tidy rows for charts and their tables: one dict a mark, accuracies in percent."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from tombola.report.arms import ArmResults, GatheredArms
from tombola.report.prose import share

Row = dict[str, Any]


def accuracy_row(arm: ArmResults, series: str) -> Row:
    """One arm as a point with its interval; `series`: the name under which it is drawn."""
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
    """A method's tickets and controls, without those whose accuracy is not a number."""
    rows = (accuracy_row(arm, arm.role) for arm in study.arms if arm.method == method)
    return [row for row in rows if row["mean"] is not None]


def overview_rows(study: GatheredArms) -> list[Row]:
    """Every method's tickets, without controls."""
    rows = (accuracy_row(arm, method) for method in study.methods for arm in study.tickets(method))
    return [row for row in rows if row["mean"] is not None]


def dense_row(study: GatheredArms, method: str) -> Row | None:
    """The dense network beside a method: that of its sparsest ticket."""
    arms = [arm for arm in study.arms if arm.method == method] or list(study.arms)
    dense = study.dense(arms[-1]) if arms else None
    row = None if dense is None else accuracy_row(dense, "dense")
    return row if row is not None and row["mean"] is not None else None


def layer_rows(study: GatheredArms, method: str) -> list[Row]:
    """Kept share of each tensor of a method's tickets, mean over seeds, in network order."""
    rows = []
    for arm in study.tickets(method):
        kept: dict[str, list[float]] = defaultdict(list)
        for result in arm.results:
            for layer, (count, size) in result.layers.items():
                kept[layer].append(count / size if size else 0.0)
        sizes = {layer: size for result in arm.results for layer, (_, size) in result.layers.items()}
        for layer, shares in kept.items():
            value = 100 * math.fsum(shares) / len(shares)
            rows.append({"layer": layer, "size": sizes[layer], "density": share(arm.density), "value": value})
    return rows


def curve_rows(study: GatheredArms, ticket: ArmResults) -> list[Row]:
    """Validation metric by epoch, mean over seeds, of a ticket, its dense network and its controls."""
    arms = [a for a in study.arms if a.method == ticket.method and a.density == ticket.density]
    dense = study.dense(ticket)
    return [row for arm in [*([dense] if dense else []), *arms] for row in _curve(arm)]


def cost_rows(study: GatheredArms) -> list[Row]:
    """Cost of each search, mean over seeds."""
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
        {"label": f"{own.subject}, {share(own.density)}"}
        | {key: None if value is None else finite(100 * value) for key, value in own.training.items()}
        for own in study.saved
    ]


def finite(value: float | None) -> float | None:
    """The value if JSON can hold it."""
    return value if value is not None and math.isfinite(value) else None


def bounds(rows: Iterable[Row | None]) -> tuple[float, float]:
    """A range in percent that shows every mean, and intervals up to one and a half times the means' range."""
    known = [row for row in rows if row is not None]
    if not known:
        return 0.0, 100.0
    means = [row["mean"] for row in known]
    bottom, top = min(means), max(means)
    room = max(0.5 * (top - bottom), 0.5)
    lows = [row["low"] for row in known if row["low"] is not None]
    highs = [row["high"] for row in known if row["high"] is not None]
    low, high = max(min([bottom, *lows]), bottom - room), min(max([top, *highs]), top + room)
    margin = max(0.06 * (high - low), 0.1)
    return low - margin, high + margin


def _curve(arm: ArmResults) -> list[Row]:
    values: dict[float, list[float]] = defaultdict(list)
    for result in arm.results:
        for row in result.history:
            if "epoch" in row and math.isfinite(row.get("validation_metric", math.nan)):
                values[row["epoch"]].append(row["validation_metric"])
    return [
        {"series": arm.role, "epoch": epoch, "value": 100 * math.fsum(v) / len(v), "seeds": len(v)}
        for epoch, v in sorted(values.items())
    ]
