"""The report's charts as Altair objects. Colours come from the page's theme, so one chart serves light and dark."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt

from tombola.report.chart_rows import Row
from tombola.report.theme import shape

Mark = Literal["bar", "line", "point", "rect", "rule", "text", "tick"]

HEIGHT = 270
ACCURACY = "test accuracy, %"
SOLID, DASHED = {"strokeWidth": 2.4}, {"strokeWidth": 1.2, "strokeDash": [4, 3]}


def accuracy_chart(
    rows: Sequence[Row],
    dense: Row | None,
    series: Sequence[str],
    y: tuple[float, float],
    *,
    thin: Sequence[str] = (),
    title: str = ACCURACY,
) -> alt.LayerChart:
    """Accuracy against density on a logarithmic axis, sparser to the right, with 95 % intervals.

    The dense network is a line with a band. Marks at one density are set slightly apart, so that none hides another.

    Args:
        rows: one for each arm and density, as `accuracy_row` makes them.
        dense: the row of the dense network, if there is one.
        series: the names of all series, in the order of their colours.
        y: the range of the accuracy axis in percent; intervals beyond it are cut off.
        thin: the series to draw thin and dashed.
        title: of the axis of accuracy, or of what else arms are compared by.
    """
    densities = sorted({row["density"] for row in rows})
    sides = (densities[-1] * 1.5, densities[0] / 1.5)
    gap = min((b / a for a, b in itertools.pairwise(densities)), default=sides[0] / sides[1])
    # On a logarithmic axis a factor is a distance: 1.4 % of the axis between two series, unless all series together
    # would take more than half of the smallest gap between two densities.
    factor = min((sides[0] / sides[1]) ** 0.014, gap ** (0.5 / len(series)))
    offset = {name: i - (len(series) - 1) / 2 for i, name in enumerate(series)}
    placed = [row | {"x": row["density"] * factor ** -offset[row["series"]]} for row in rows]
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
    scale = alt.Scale(domain=y, nice=False, zero=False)
    layers = [] if dense is None else _band(dense, scale, title)
    for names, stroke, size in ((thin, DASHED, 38), ([s for s in series if s not in thin], SOLID, 72)):
        layers += _arms([row for row in placed if row["series"] in names], x, scale, series, stroke, size, title)
    return alt.LayerChart(layer=layers, height=HEIGHT, width="container")


def layers_chart(rows: Sequence[Row], densities: Sequence[str], least: float) -> alt.LayerChart:
    """Kept share of each layer on a logarithmic axis; a cross at the left edge marks a layer with nothing left.

    Args:
        rows: one for each layer and density, as `layer_rows` makes them.
        densities: the texts of all densities, in the order of their colours.
        least: the smallest share above 0 in percent, where the axis begins.
    """
    floor = least / 2  # A logarithmic axis has no 0, so the crosses stand here.
    order = list(dict.fromkeys(row["layer"] for row in rows))
    encodings: dict[str, Any] = {
        "x": alt.X(
            "place:Q",
            title="kept, % of the layer's weights",
            scale=alt.Scale(type="log", domain=(floor * 0.8, 115), nice=False),
            axis=alt.Axis(format="~g", values=_round_shares(floor), labelOverlap="greedy"),
        ),
        "y": alt.Y(
            "layer:N", sort=order, title=None, axis=alt.Axis(labelLimit=150, labelPadding=8, grid=True, ticks=False)
        ),
        "tooltip": [
            alt.Tooltip("layer:N"),
            alt.Tooltip("density:N", title="density of the network"),
            alt.Tooltip("value:Q", title="kept, %", format=".4~g"),
            alt.Tooltip("size:Q", title="weights", format=","),
        ],
    }
    color = alt.Color("density:O", title="density", sort=list(densities), scale=alt.Scale(domain=list(densities)))
    placed = [row | {"place": max(row["value"], floor)} for row in rows]
    left = [row for row in placed if row["value"] > 0]
    empty = [row for row in placed if row["value"] == 0]
    layers = [draw(left, "point", filled=True, opacity=1, size=70).encode(**encodings, color=color)]
    if empty:
        layers.append(
            draw(empty, "point", shape="cross", filled=True, opacity=1, size=80, style="nothing-left").encode(
                **encodings
            )
        )
    return alt.LayerChart(layer=layers, height=22 * len(order), width="container")


def curves_chart(rows: Sequence[Row], series: Sequence[str], field: str, x: str, y: str) -> alt.LayerChart:
    """Accuracy by epoch, or by another field of the rows: ticket and dense as full lines, controls dashed.

    Args:
        rows: one for each point, with series, value in percent, seeds and the field.
        series: the names of ticket and controls, in the order of their colours.
        field: the rows' field on the horizontal axis.
        x: the title of the horizontal axis.
        y: the title of the vertical axis.
    """
    encodings: dict[str, Any] = {
        "x": alt.X(f"{field}:Q", title=x, axis=alt.Axis(tickMinStep=1, grid=False, tickCount=6)),
        "y": alt.Y("value:Q", title=y, scale=alt.Scale(zero=False)),
        "tooltip": [
            alt.Tooltip("series:N", title="arm"),
            alt.Tooltip(f"{field}:Q", title=x),
            alt.Tooltip("value:Q", title=y, format=".2f"),
            alt.Tooltip("seeds:Q", title="seeds"),
        ],
    }
    opacity = 1 if len({row[field] for row in rows}) == 1 else 0  # A line through one point shows nothing.
    dense = [row for row in rows if row["series"] == "dense"]
    ticket = [row for row in rows if row["series"] == "ticket"]
    controls = [row for row in rows if row["series"] not in ("dense", "ticket")]
    point = alt.OverlayMarkDef(opacity=opacity, size=60, filled=True)
    grey = alt.OverlayMarkDef(opacity=opacity, size=60, filled=True, style="dense-point")
    color = _color(series)
    layers = [
        draw(dense, "line", style="dense", point=grey).encode(**encodings),
        draw(controls, "line", point=point, **DASHED).encode(**encodings, color=color),
        draw(ticket, "line", point=point, **SOLID).encode(**encodings, color=color),
    ]
    return alt.LayerChart(layer=layers, height=220, width="container")


def cost_chart(rows: Sequence[Row], field: str, title: str) -> alt.LayerChart:
    """One bar for each search, with its figure at the end.

    Args:
        rows: as `cost_rows` makes them.
        field: the cost to show; rows without it are left out.
        title: the title of the axis.
    """
    drawn = [row for row in rows if row[field] is not None]
    most = max((row[field] for row in drawn), default=0.0) or 1.0
    order = [row["label"] for row in drawn]
    encodings: dict[str, Any] = {
        "x": alt.X(
            f"{field}:Q",
            title=title,
            scale=alt.Scale(domain=(0, most * 1.22), nice=False),
            axis=alt.Axis(tickCount=5, labelOverlap="greedy"),
        ),
        "y": alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=150, ticks=False)),
        "tooltip": [alt.Tooltip("label:N", title="search"), alt.Tooltip(f"{field}:Q", title=title, format=".4~g")],
    }
    bars = draw(drawn, "bar", height={"band": 0.62}).encode(**encodings)
    figures = draw(drawn, "text", align="left", dx=5).encode(**encodings, text=alt.Text(f"{field}:Q", format=",.3~r"))
    return alt.LayerChart(layer=[bars, figures], height=24 * len(order), width="container")


def savings_chart(rows: Sequence[Row], field: str, title: str) -> alt.LayerChart:
    """One bar for each ticket, with its figure at the end; to the left of 0 if it spends more than dense.

    Args:
        rows: as `saving_rows` makes them.
        field: the measure to show; rows without it are left out.
        title: the measure's name, for the axis.
    """
    drawn = [row for row in rows if row[field] is not None]
    least, most = (pick([row[field] for row in drawn]) for pick in (min, max))
    least, most = min(least, 0.0), max(most, 10.0)
    room = 0.25 * (most - least)  # For the figures.
    order = [row["label"] for row in drawn]
    encodings: dict[str, Any] = {
        "x": alt.X(
            f"{field}:Q",
            title=f"{title} saved, %",
            scale=alt.Scale(domain=(least - room * (least < 0), most + room), nice=False),
            axis=alt.Axis(tickCount=5, labelOverlap="greedy"),
        ),
        "y": alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=150, ticks=False)),
        "tooltip": [alt.Tooltip("label:N", title="ticket"), alt.Tooltip(f"{field}:Q", title="saved, %", format=".1f")],
    }
    layers = [
        draw(drawn, "bar", height={"band": 0.62}).encode(**encodings),
        draw([{}], "rule", style="dense").encode(x=alt.datum(0)),
    ]
    # Vega-Lite aligns all texts of a layer alike, so figures to the left and right of their bars are two layers.
    for align, side in (("right", [r for r in drawn if r[field] < 0]), ("left", [r for r in drawn if r[field] >= 0])):
        if side:
            figures = draw(side, "text", align=align, dx=5 if align == "left" else -5)
            layers.append(figures.encode(**encodings, text=alt.Text(f"{field}:Q", format=".1f")))
    return alt.LayerChart(layer=layers, height=24 * len(order), width="container")


def differences_chart(rows: Sequence[Row], colours: Mapping[str, str], what: str = "left − right") -> alt.VConcatChart:
    """Differences of two arms with their intervals, one below the other, coloured by the finding.

    Args:
        rows: with expected (the label), unit, finding, mean, low and high; rows of one unit share an axis.
        colours: the colour of each finding.
        what: the difference, for the axis' title.
    """
    units = dict.fromkeys(row["unit"] for row in rows)
    parts = [_differences([row for row in rows if row["unit"] == unit], f"{what}, {unit}", colours) for unit in units]
    return alt.VConcatChart(vconcat=parts)


def _differences(rows: Sequence[Row], title: str, colours: Mapping[str, str]) -> alt.LayerChart:
    order = [row["expected"] for row in rows]
    encodings: dict[str, Any] = {
        "y": alt.Y("expected:N", sort=order, title=None, axis=alt.Axis(labelLimit=340, grid=True)),
        "color": alt.Color(
            "finding:N", title=None, scale=alt.Scale(domain=list(colours), range=list(colours.values()))
        ),
    }
    layers = [
        draw([{}], "rule", style="dense").encode(x=alt.datum(0)),
        draw(rows, "rule", strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2=alt.X2("high:Q"), **encodings),
        draw(rows, "point", filled=True, size=80, opacity=1).encode(x=alt.X("mean:Q", title=title), **encodings),
    ]
    return alt.LayerChart(layer=layers, width=460, height=30 * len(rows))


def empty_chart(text: str) -> alt.Chart:
    """A sentence that takes the place of a chart without data."""
    return draw([{"text": text}], "text").encode(text="text:N").properties(width=340, height=80)


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart as plain JSON, without Altair's settings (the page has its own) and the schema's address.

    It is not validated, which would take half of a report's time: the drawn page is tested.
    """
    return {key: value for key, value in chart.to_dict(validate=False).items() if key not in ("config", "$schema")}


def _round_shares(least: float) -> list[float]:
    """1, 2 and 5 times each power of ten from `least` to 100.

    Examples:
        >>> _round_shares(3.0)
        [5.0, 10.0, 20.0, 50.0, 100.0]
    """
    decades = range(math.floor(math.log10(least)), 3)
    return [v for power in decades for digit in (1, 2, 5) if least <= (v := digit * 10.0**power) <= 100]


def draw(rows: Sequence[Row], mark: Mark, **settings: Any) -> alt.Chart:
    """One layer: marks of one kind, one for each row."""
    return alt.Chart(alt.Data(values=list(rows)), mark=alt.MarkDef(type=mark, **settings))


def _arms(
    rows: Sequence[Row],
    x: alt.X,
    scale: alt.Scale,
    series: Sequence[str],
    stroke: dict[str, Any],
    size: int,
    title: str,
) -> list[alt.Chart]:
    """Lines, intervals and points of some series. `stroke` is SOLID or DASHED, `size` that of the points."""
    if not rows:
        return []
    tooltip = [
        alt.Tooltip("series:N", title="arm"),
        alt.Tooltip("kept:N", title="density"),
        alt.Tooltip("removed:N", title="sparsity"),
        alt.Tooltip("mean:Q", title=title, format=".2f"),
        alt.Tooltip("low:Q", title="95 % from", format=".2f"),
        alt.Tooltip("high:Q", title="to", format=".2f"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
    color, mean = _color(series), alt.Y("mean:Q", title=title, scale=scale)
    mark_shape = alt.Shape(
        "series:N",
        title=None,
        scale=alt.Scale(domain=list(series), range=[shape(i) for i in range(len(series))]),
    )
    intervals = [row for row in rows if row["low"] is not None]
    low_to_high: dict[str, Any] = {"y": alt.Y("low:Q", title=title, scale=scale), "y2": alt.Y2("high:Q")}
    return [
        draw(rows, "line", clip=True, **stroke).encode(x=x, y=mean, color=color),
        draw(intervals, "rule", clip=True, strokeWidth=stroke["strokeWidth"]).encode(x=x, color=color, **low_to_high),
        draw(rows, "point", filled=True, opacity=1, size=size).encode(
            x=x, y=mean, color=color, shape=mark_shape, tooltip=tooltip
        ),
    ]


def _band(dense: Row, scale: alt.Scale, title: str) -> list[alt.Chart]:
    tooltip = [alt.Tooltip("mean:Q", title="dense, %", format=".2f"), alt.Tooltip("seeds:Q", title="seeds")]
    line = draw([dense], "rule", style="dense").encode(y=alt.Y("mean:Q", title=title, scale=scale), tooltip=tooltip)
    if dense["low"] is None:
        return [line]
    low, high = alt.Y("low:Q", title=title, scale=scale), alt.Y2("high:Q")
    return [draw([dense], "rect", style="dense-band", clip=True).encode(y=low, y2=high), line]


def _color(series: Sequence[str]) -> alt.Color:
    return alt.Color("series:N", title=None, scale=alt.Scale(domain=list(series)))
