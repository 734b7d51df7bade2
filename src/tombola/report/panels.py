"""The report's figures; each is a group of panels with one legend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from tombola.report import chart_rows, robustness_tables, sanity_tables
from tombola.report.arms import GatheredArms
from tombola.report.charts import (
    ACCURACY,
    accuracy_chart,
    cost_chart,
    curves_chart,
    differences_chart,
    empty_chart,
    layers_chart,
    savings_chart,
    specification,
)
from tombola.report.prose import MEASURES, share
from tombola.report.ranking_tables import critical_difference_chart
from tombola.report.theme import LIGHT, shape, vega_config

PNG_WIDTH = 340


@dataclass(frozen=True)
class Panel:
    """One chart with its heading.

    Args:
        key: what identifies the panel on the page.
        title: the heading.
        chart: the Vega-Lite specification.
    """

    key: str
    title: str
    chart: dict[str, Any]


@dataclass(frozen=True)
class LegendEntry:
    """One entry of a legend.

    Args:
        text: what it names.
        kind: what it looks like: "series", "ramp" (a density's colour), "band" (dense with its interval), "dense" (a
            line) or "gone" (the cross of a layer with nothing left).
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
    """All figures of a report by name. One without data has no panels; overview needs several methods."""
    return {
        "overview": _overview(study),
        "accuracy": _accuracy(study),
        "layers": _layers(study),
        "training": _training(study),
        "cost": _cost(study),
        "robustness": _robustness(study),
        "savings": _savings(study),
        "ranking": _ranking(study),
    }


def pictures(study: GatheredArms, drawn: dict[str, Figure]) -> dict[str, bytes]:
    """The figures as PNG images in the light theme.

    Args:
        study: the content of the report.
        drawn: what `figures` made of it.

    Returns:
        The images by file name.
    """
    config = vega_config(LIGHT, len(study.densities)) | {"background": LIGHT.card}
    groups = {name: [drawn[name]] for name in ("accuracy", "layers", "training", "cost", "savings")}
    groups |= {"ranking": [drawn["ranking"]]} if drawn["ranking"].panels else {}
    groups |= {"robustness": [drawn["robustness"]]} if drawn["robustness"].panels else {}
    groups["accuracy"].insert(0, drawn["overview"])
    images = {f"{name}.png": _png(group, config) for name, group in groups.items()}
    return images | ({"sanity.png": _sanity_png(study, config)} if study.sanity else {})


def _overview(study: GatheredArms) -> Figure:
    rows, methods = chart_rows.overview_rows(study), study.methods
    if len(methods) < 2 or not rows:
        return Figure((), ())
    dense = chart_rows.dense_row(study, methods[0])
    chart = accuracy_chart(
        rows, dense, methods, chart_rows.bounds([*rows, dense], study.measure), title=_axis(study, "test")
    )
    label = "Accuracy against density of every method's tickets"
    legend = [_series_entry(method, i, dashed=False) for i, method in enumerate(methods)]
    return Figure((_panel("overview", "All methods", label, chart),), (*legend, *_dense_entry(dense)))


def _accuracy(study: GatheredArms) -> Figure:
    series = ["ticket", *study.controls]
    groups = {method: rows for method in study.methods if (rows := chart_rows.method_rows(study, method))}
    dense = {method: chart_rows.dense_row(study, method) for method in groups}
    y = chart_rows.bounds([*dense.values(), *(row for rows in groups.values() for row in rows)], study.measure)
    panels = tuple(
        _panel(
            f"accuracy-{i}",
            method,
            f"Accuracy against density of {method}, its controls and dense",
            accuracy_chart(rows, dense[method], series, y, thin=study.controls, title=_axis(study, "test")),
        )
        for i, (method, rows) in enumerate(groups.items())
    )
    legend = [_series_entry(name, i, dashed=i > 0) for i, name in enumerate(series)]
    return Figure(panels, (*legend, *_dense_entry(next(iter(dense.values()), None))) if panels else ())


def _layers(study: GatheredArms) -> Figure:
    densities = [share(density) for density in study.densities]
    groups = {method: chart_rows.layer_rows(study, method) for method in study.methods}
    least = min((row["value"] for rows in groups.values() for row in rows if row["value"] > 0), default=1.0)
    panels = tuple(
        _panel(f"layers-{i}", method, f"Kept share of each layer by {method}", layers_chart(rows, densities, least))
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
        _panel(
            f"training-{i}",
            f"{arm.method}, density {share(arm.density)}{kind}",
            f"Validation accuracy{kind} by epoch of {arm.method} at density {share(arm.density)}, "
            "its controls and dense",
            curves_chart(rows, series, "epoch", "epoch", _axis(study, "validation")),
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
        _panel(
            f"robustness-{i}",
            f"{ticket.title}: {kind}",
            f"Accuracy against {axis} of {ticket.title}, dense and controls",
            curves_chart(rows, series, "place", axis, ACCURACY),
        )
        for i, (ticket, kind, axis, rows) in enumerate(curves)
    )
    legend = [LegendEntry(name, "series", i, shape="", dashed=i > 0) for i, name in enumerate(series)]
    return Figure(panels, (*legend, LegendEntry("dense", "dense")) if panels else ())


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
        if any(row[field] is not None for row in rows)
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


def _panel(key: str, title: str, label: str, chart: alt.LayerChart) -> Panel:
    """One panel; `label` describes the chart to readers who cannot see it."""
    return Panel(key, title, specification(chart) | {"description": label})


def _series_entry(name: str, index: int, *, dashed: bool) -> LegendEntry:
    return LegendEntry(name, "series", index, shape(index), dashed)


def _dense_entry(dense: chart_rows.Row | None) -> list[LegendEntry]:
    if dense is None:
        return []
    return [LegendEntry("dense", "dense") if dense["low"] is None else LegendEntry("dense, with 95 % interval", "band")]


def _png(group: Sequence[Figure], config: dict[str, Any]) -> bytes:
    rows = [_row(figure) for figure in group if figure.panels] or [
        specification(empty_chart("There is nothing to show."))
    ]
    # The figures' colours mean different things: methods in the overview, ticket and controls in the others.
    resolve = {"scale": {"color": "independent", "shape": "independent"}}
    page = {"vconcat": rows, "spacing": 40, "resolve": resolve, "config": config, "padding": 20}
    return vl_convert.vegalite_to_png(json.dumps(page), vl_version="6.4", scale=2)


def _sanity_png(study: GatheredArms, config: dict[str, Any]) -> bytes:
    """Ticket minus control of every sanity check, with its interval."""
    colours = {finding: getattr(LIGHT, name) for finding, name in sanity_tables.COLOURS.items()}
    chart = specification(differences_chart(sanity_tables.difference_rows(study), colours, "ticket − control"))
    return vl_convert.vegalite_to_png(json.dumps(chart | {"config": config, "padding": 20}), vl_version="6.4", scale=2)


def _row(figure: Figure) -> dict[str, Any]:
    width = PNG_WIDTH * (2 if len(figure.panels) == 1 else 1)
    row: dict[str, Any] = {
        "concat": [panel.chart | {"width": width, "title": panel.title} for panel in figure.panels],
        "columns": 3,
        "spacing": 36,
        "resolve": {"scale": {"color": "shared", "shape": "shared"}},
    }
    # Vega-Lite's legends show colours of data only, so the title explains what is grey.
    grey = [f"Grey: {entry.text}" for entry in figure.legend if entry.kind in ("band", "dense")]
    return row | ({"title": {"text": grey[0], "fontSize": 11, "fontWeight": "normal"}} if grey else {})
