"""The report's figures; each is a group of panels with one legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from tombola.report import chart_rows, robustness_tables
from tombola.report.accuracy_charts import accuracy_chart, differences_to_dense_chart, spending_chart
from tombola.report.arms import GatheredArms
from tombola.report.axis_range import bounds, placed
from tombola.report.charts import (
    ACCURACY,
    cost_chart,
    curves_chart,
    layers_chart,
    savings_chart,
    specification,
)
from tombola.report.prose import MEASURES, capital, share
from tombola.report.ranking_tables import critical_difference_chart
from tombola.report.theme import shape


@dataclass(frozen=True)
class Panel:
    """One chart with its heading.

    Args:
        key: what identifies the panel on the page.
        title: the heading.
        chart: the Vega-Lite specification.
        method: the method that all of it is about; "" for several.
        kept: the text of the density that all of it is about; "" for several.
    """

    key: str
    title: str
    chart: dict[str, Any]
    method: str = ""
    kept: str = ""


@dataclass(frozen=True)
class LegendEntry:
    """One entry of a legend.

    Args:
        text: what it names.
        kind: what it looks like: "series", "ramp" (a density's colour), "band" (dense with its interval), "dense" (a
            line), "gone" (the cross of a layer with nothing left) or "beyond" (a mark at the edge).
        index: the position of its colour among those of its kind.
        shape: the mark of a series; none if empty.
        dashed: whether its line is thin and dashed.
    """

    text: str
    kind: str
    index: int = 0
    shape: str = "circle"
    dashed: bool = False


@dataclass(frozen=True)
class Figure:
    """Panels that belong together, and their common legend; without data, it has neither."""

    panels: tuple[Panel, ...]
    legend: tuple[LegendEntry, ...]


def figures(study: GatheredArms) -> dict[str, Figure]:
    """All figures of a report by name. One without data has no panels."""
    return {
        "accuracy": _overview(study),
        "differences": _differences(study),
        "layers": _layers(study),
        "training": _training(study),
        "cost": _cost(study),
        "robustness": _robustness(study),
        "savings": _savings(study),
        "ranking": _ranking(study),
    }


def _overview(study: GatheredArms) -> Figure:
    """Accuracy against density and against cost, of every method's tickets."""
    rows, methods = chart_rows.overview_rows(study), study.methods
    if not rows:
        return Figure((), ())
    dense, title = chart_rows.dense_row(study, methods[0]), _axis(study, "test")
    y = bounds([*rows, dense], study.measure)
    name = capital(study.measure.name)
    panels = [
        _panel(
            "accuracy",
            f"{name} against density",
            f"{name} against density of every method's tickets",
            accuracy_chart(rows, dense, methods, y, title=title),
        )
    ]
    if spent := chart_rows.spending_rows(study):
        panels.append(
            _panel(
                "spending",
                f"{name} against cost",
                f"{name} against the dense epochs of search and training, of every method's tickets",
                spending_chart(spent, dense, methods, y, title=title),
            )
        )
    legend = [_series_entry(method, i, dashed=False) for i, method in enumerate(methods)]
    return Figure(tuple(panels), (*legend, *_dense_entry(dense), *_beyond(rows, y)))


def _differences(study: GatheredArms) -> Figure:
    """Every ticket and control minus dense, a panel for each density."""
    series = ["ticket", *study.controls]
    groups = {density: rows for density in study.densities if (rows := chart_rows.difference_rows(study, density))}
    panels, beyond = [], []
    for i, (density, rows) in enumerate(groups.items()):
        margin = max((v.margin for v in study.verdicts), default=0.0) * study.measure.scale
        x = bounds(rows, study.measure, also=(-margin, margin))
        beyond += _beyond(rows, x)
        present = [method for method in study.methods if any(row["method"] == method for row in rows)]
        panels.append(
            replace(
                _panel(
                    f"differences-{i}",
                    f"Density {share(density)}",
                    f"Every ticket and control at density {share(density)} minus dense, with intervals",
                    differences_to_dense_chart(rows, present, series, x, margin, study.measure.unit),
                ),
                kept=share(density),
            )
        )
    legend = [_series_entry(name, i, dashed=False) for i, name in enumerate(series)]
    grey = [LegendEntry("dense, with the margin", "band")] if study.verdicts else [LegendEntry("dense", "dense")]
    return Figure(tuple(panels), (*legend, *grey, *beyond[:1]) if panels else ())


def _layers(study: GatheredArms) -> Figure:
    densities = [share(density) for density in study.densities]
    groups = {method: chart_rows.layer_rows(study, method) for method in study.methods}
    least = min((row["value"] for rows in groups.values() for row in rows if row["value"] > 0), default=1.0)
    panels = tuple(
        replace(
            _panel(
                f"layers-{i}", method, f"Kept share of each layer by {method}", layers_chart(rows, densities, least)
            ),
            method=method,
        )
        for i, (method, rows) in enumerate(groups.items())
        if rows
    )
    ramp = [LegendEntry(f"density {text}", "ramp", i) for i, text in enumerate(densities)]
    gone = (
        [LegendEntry("nothing left", "gone")]
        if any(row["value"] == 0 for rows in groups.values() for row in rows)
        else []
    )
    return Figure(panels, (*ramp, *gone) if panels else ())


CURVES = {"": "validation_metric", ", under PGD": "robust_pgd", ", under APGD": "robust_apgd"}
"""What is drawn by epoch, by what it is called beside validation accuracy."""


def _training(study: GatheredArms) -> Figure:
    series = ["ticket", *study.controls]
    tickets = [arm for method in study.methods for arm in study.tickets(method)]
    curves = [
        (arm, kind, rows)
        for arm in tickets
        for kind, field in CURVES.items()
        if (rows := chart_rows.curve_rows(study, arm, field))
    ]
    panels = tuple(
        replace(
            _panel(
                f"training-{i}",
                f"{arm.method}, density {share(arm.density)}{kind}",
                f"Validation {study.measure.name}{kind} by epoch of {arm.method} at density {share(arm.density)}, "
                "its controls and dense",
                curves_chart(rows, series, "epoch", "epoch", _axis(study, "validation")),
            ),
            method=arm.method,
            kept=share(arm.density),
        )
        for i, (arm, kind, rows) in enumerate(curves)
    )
    legend = [LegendEntry(name, "series", i, shape="", dashed=i > 0) for i, name in enumerate(series)]
    return Figure(panels, (*legend, LegendEntry("dense", "dense")) if panels else ())


def _cost(study: GatheredArms) -> Figure:
    rows = chart_rows.cost_rows(study)
    measures = (("dense_epochs", "dense epochs"), ("seconds", "seconds"))
    panels = tuple(
        _panel(f"cost-{field}", f"In {title}", f"Cost of each search in {title}", cost_chart(rows, field, title))
        for field, title in measures
        if any(row[field] is not None for row in rows)
    )
    return Figure(panels, ())


def _robustness(study: GatheredArms) -> Figure:
    series = ["ticket", *study.controls]
    curves = [
        (ticket, kind, axis, rows)
        for ticket in robustness_tables.robustness_rows(study)
        for kind, (_, axis) in robustness_tables.AXES.items()
        if (rows := robustness_tables.robustness_curve_rows(ticket, kind))
    ]
    panels = tuple(
        replace(
            _panel(
                f"robustness-{i}",
                f"{ticket.title}: {kind}",
                f"Accuracy against {axis} of {ticket.title}, dense and controls",
                curves_chart(rows, series, "place", axis, ACCURACY),
            ),
            method=ticket.arm.method,
            kept=share(ticket.arm.density),
        )
        for i, (ticket, kind, axis, rows) in enumerate(curves)
    )
    legend = [LegendEntry(name, "series", i, shape="", dashed=i > 0) for i, name in enumerate(series)]
    return Figure(panels, (*legend, LegendEntry("dense", "dense")) if panels else ())


SHOWN = 0.05
"""The smallest saving in percent that the charts' figures show as something else than 0."""


def _savings(study: GatheredArms) -> Figure:
    rows = chart_rows.saving_rows(study)
    measures = {key: title for key, title in MEASURES.items() if key != "peak_memory"}
    panels = tuple(
        _panel(
            f"savings-{field}",
            f"{title[0].upper()}{title[1:]}",
            f"Share of dense training's {title} that tickets save",
            savings_chart(rows, field, title),
        )
        for field, title in measures.items()
        if any(abs(row[field] or 0.0) >= SHOWN for row in rows)
    )
    return Figure(panels, ())


def _ranking(study: GatheredArms) -> Figure:
    panels = tuple(
        _panel(
            f"ranking-{i}",
            f"{ranking.title[0].upper()}{ranking.title[1:]}",
            f"Mean ranks of methods by {ranking.title}, with bars that join those that were not told apart",
            critical_difference_chart(ranking),
        )
        for i, ranking in enumerate(study.rankings)
    )
    return Figure(panels, ())


def _axis(study: GatheredArms, split: str) -> str:
    """The title of an axis of what arms are compared by."""
    return f"{split} {study.measure.name}{', %' * study.measure.share}"


def _beyond(rows: Sequence[chart_rows.Row], ends: tuple[float, float]) -> list[LegendEntry]:
    far = any(row["beyond"] for row in placed(rows, *ends))
    return [LegendEntry("far off: at the edge, with its figure", "beyond")] if far else []


def _panel(key: str, title: str, label: str, chart: alt.LayerChart) -> Panel:
    """One panel; `label` describes the chart to readers who cannot see it."""
    return Panel(key, title, specification(chart) | {"description": label})


def _series_entry(name: str, index: int, *, dashed: bool) -> LegendEntry:
    return LegendEntry(name, "series", index, shape(index), dashed)


def _dense_entry(dense: chart_rows.Row | None) -> list[LegendEntry]:
    if dense is None:
        return []
    return [LegendEntry("dense", "dense") if dense["low"] is None else LegendEntry("dense, with 95 % interval", "band")]
