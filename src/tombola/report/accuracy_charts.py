"""Accuracy against density and against cost, and differences to dense; what lies far off is marked at the edge."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import altair as alt

from tombola.report.axis_range import placed
from tombola.report.chart_rows import Row
from tombola.report.charts import ACCURACY, SOLID, color, draw
from tombola.report.theme import shape

HEIGHT = 290
STEP = 15
"""The height of a row of differences."""


def accuracy_chart(
    rows: Sequence[Row], dense: Row | None, series: Sequence[str], y: tuple[float, float], *, title: str = ACCURACY
) -> alt.LayerChart:
    """Accuracy against density on a logarithmic axis, sparser to the right, with 95 % intervals.

    The dense network is a line with a band. Marks at one density are set slightly apart, so that none hides another.

    Args:
        rows: one for each arm and density, as `accuracy_row` makes them.
        dense: the row of the dense network, if there is one.
        series: the names of all series, in the order of their colours.
        y: the range of the accuracy axis in percent; marks beyond it stand at its edge, and intervals are cut off.
        title: of the axis of accuracy, or of what else arms are compared by.
    """
    densities = sorted({row["density"] for row in rows})
    sides = (densities[-1] * 1.5, densities[0] / 1.5)
    gap = min((b / a for a, b in itertools.pairwise(densities)), default=sides[0] / sides[1])
    # On a logarithmic axis a factor is a distance: 1.4 % of the axis between two series, unless all series together
    # would take more than half of the smallest gap between two densities.
    factor = min((sides[0] / sides[1]) ** 0.014, gap ** (0.5 / len(series)))
    drawn = [row | {"x": row["density"] / aside} for row, aside in _aside(placed(rows, *y), series, factor)]
    kept, removed = ("format(100 * datum.value, '.4~g')", "format(100 - 100 * datum.value, '.4~g')")
    x = alt.X(
        "x:Q",
        scale=alt.Scale(type="log", domain=sides, nice=False),
        title="density (below it: sparsity)",
        axis=alt.Axis(
            values=densities[::-1],
            grid=False,
            labelOverlap="greedy",
            labelExpr=f"[{kept} + ' %', '(' + {removed} + ' %)']",
        ),
    )
    return _lines(drawn, dense, series, x, y, title)


def spending_chart(
    rows: Sequence[Row], dense: Row | None, series: Sequence[str], y: tuple[float, float], *, title: str = ACCURACY
) -> alt.LayerChart:
    """Accuracy against what search and training cost, set slightly apart; a line joins the tickets of a method.

    Args:
        rows: as `spending_rows` makes them.
        dense: the row of the dense network, if there is one.
        series: the names of all methods, in the order of their colours.
        y: the range of the accuracy axis in percent; marks beyond it stand at its edge, and intervals are cut off.
        title: of the axis of accuracy, or of what else arms are compared by.
    """
    costs = [row["cost"] for row in rows]
    least, most = min(costs) / 1.35, max(costs) * 1.35
    x = alt.X(
        "x:Q",
        scale=alt.Scale(type="log", domain=(least, most), nice=False),
        title="search and training, dense epochs",
        axis=alt.Axis(grid=False, format="~g", tickCount=6, labelOverlap="greedy"),
    )
    apart = _aside(placed(rows, *y), series, (most / least) ** 0.012)
    drawn = [row | {"x": row["cost"] * aside} for row, aside in apart]
    return _lines(drawn, dense, series, x, y, title, intervals=False)  # they stand in the chart beside this one


def differences_to_dense_chart(
    rows: Sequence[Row], methods: Sequence[str], series: Sequence[str], x: tuple[float, float], margin: float, unit: str
) -> alt.LayerChart:
    """Tickets and controls minus dense with their intervals, a row each; grey is what counts as no difference.

    Args:
        rows: as `difference_rows` makes them.
        methods: the names of the methods, from the top.
        series: the ticket and its controls, in the order of their colours.
        x: the range of the axis; marks beyond it stand at its edge.
        margin: a smaller difference counts as none; 0 draws none.
        unit: of the differences.
    """
    drawn = placed(rows, *x)
    axis: dict[str, Any] = {"title": f"minus dense, {unit}", "scale": alt.Scale(domain=x, nice=False)}
    place = alt.X("place:Q", axis=alt.Axis(tickCount=6), **axis)
    encodings: dict[str, Any] = {
        "y": alt.Y(
            "method:N", sort=list(methods), title=None, axis=alt.Axis(labelLimit=150, ticks=False, labelPadding=8)
        ),
        "yOffset": alt.YOffset("series:N", sort=list(series), scale=alt.Scale(domain=list(series), padding=0.5)),
        "color": color(series),
    }
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("series:N", title="arm"),
        alt.Tooltip("kept:N", title="density"),
        alt.Tooltip("mean:Q", title=f"minus dense, {unit}", format="+.2f"),
        alt.Tooltip("low:Q", title="from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
        alt.Tooltip("outcome:N", title="it is"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
    layers = [draw([{"from": -margin, "to": margin}], "rect", style="dense-band").encode(x="from:Q", x2="to:Q")]
    layers += [draw([{}], "rule", style="dense").encode(x=alt.datum(0))]
    within = [row for row in drawn if not row["beyond"]]
    bounded = [row for row in within if row["low"] is not None]
    ends: dict[str, Any] = {"x": alt.X("low:Q", **axis), "x2": alt.X2("high:Q")}
    tickets, controls = ([row for row in bounded if (row["series"] == "ticket") is own] for own in (True, False))
    for own, thick in ((tickets, 2.4), (controls, 1.4)):
        if own:
            layers.append(draw(own, "rule", clip=True, strokeWidth=thick).encode(**ends, **encodings))
    if within:
        points = draw(within, "point", filled=True, opacity=1, size=62)
        layers.append(points.encode(x=place, shape=_shapes(series), tooltip=tooltip, **encodings))
    for beyond, mark, align, dx in (("below", "triangle-left", "left", 9), ("above", "triangle-right", "right", -9)):
        if there := [row for row in drawn if row["beyond"] == beyond]:
            edge = draw(there, "point", shape=mark, filled=False, opacity=1, size=70, strokeWidth=1.8)
            layers.append(edge.encode(x=place, tooltip=tooltip, **encodings))
            said = draw(there, "text", align=align, baseline="middle", dx=dx)
            layers.append(said.encode(x=place, text="said:N", **encodings))
    return alt.LayerChart(layer=layers, height=STEP * (len(series) + 1) * len(methods), width="container")


def _lines(
    rows: Sequence[Row],
    dense: Row | None,
    series: Sequence[str],
    x: alt.X,
    y: tuple[float, float],
    title: str,
    intervals: bool = True,
) -> alt.LayerChart:
    """Lines, intervals and points of the series over the band of dense; at the edge, what lies beyond."""
    scale = alt.Scale(domain=y, nice=False, zero=False)
    mean, at = alt.Y("mean:Q", title=title, scale=scale), alt.Y("place:Q", title=title, scale=scale)
    low_to_high: dict[str, Any] = {"y": alt.Y("low:Q", title=title, scale=scale), "y2": alt.Y2("high:Q")}
    hue, tooltip = color(series), _tooltip(title)
    within = [row for row in rows if not row["beyond"]]
    bounded = [row for row in within if intervals and row["low"] is not None]
    layers = [] if dense is None else _band(dense, scale, title)
    layers += [
        draw(rows, "line", clip=True, **SOLID).encode(x=x, y=mean, color=hue),
        draw(bounded, "rule", clip=True, **SOLID).encode(x=x, color=hue, **low_to_high),
        draw(within, "point", filled=True, opacity=1, size=72).encode(
            x=x, y=at, color=hue, shape=_shapes(series), tooltip=tooltip
        ),
    ]
    for beyond, mark, dy in (("below", "triangle-down", -14), ("above", "triangle-up", 14)):
        if there := [row for row in rows if row["beyond"] == beyond]:
            edge = draw(there, "point", shape=mark, filled=False, opacity=1, size=90, strokeWidth=2)
            layers.append(edge.encode(x=x, y=at, color=hue, tooltip=tooltip))
            layers.append(
                draw(there, "text", align="right", dx=-8, dy=dy / 2).encode(x=x, y=at, text="said:N", color=hue)
            )
    return alt.LayerChart(layer=layers, height=HEIGHT, width="container")


def _aside(rows: Sequence[Row], series: Sequence[str], factor: float) -> list[tuple[Row, float]]:
    """Each row with what its place on a logarithmic axis is multiplied by, so that no series hides another."""
    offset = {name: i - (len(series) - 1) / 2 for i, name in enumerate(series)}
    return [(row, factor ** offset[row["series"]]) for row in rows]


def _tooltip(title: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("series:N", title="arm"),
        alt.Tooltip("kept:N", title="density"),
        alt.Tooltip("removed:N", title="sparsity"),
        alt.Tooltip("mean:Q", title=title, format=".2f"),
        alt.Tooltip("low:Q", title="95 % from", format=".2f"),
        alt.Tooltip("high:Q", title="to", format=".2f"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]


def _shapes(series: Sequence[str]) -> alt.Shape:
    scale = alt.Scale(domain=list(series), range=[shape(i) for i in range(len(series))])
    return alt.Shape("series:N", title=None, scale=scale)


def _band(dense: Row, scale: alt.Scale, title: str) -> list[alt.Chart]:
    tooltip = [alt.Tooltip("mean:Q", title="dense, %", format=".2f"), alt.Tooltip("seeds:Q", title="seeds")]
    line = draw([dense], "rule", style="dense").encode(y=alt.Y("mean:Q", title=title, scale=scale), tooltip=tooltip)
    if dense["low"] is None:
        return [line]
    low, high = alt.Y("low:Q", title=title, scale=scale), alt.Y2("high:Q")
    return [draw([dense], "rect", style="dense-band", clip=True).encode(y=low, y2=high), line]
