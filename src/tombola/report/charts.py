"""The report's charts as Altair objects. Colours come from the page's theme, so one chart serves light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt

from tombola.report.chart_rows import Row

Mark = Literal["bar", "line", "point", "rect", "rule", "text", "tick"]

HEIGHT = 270
ACCURACY = "test accuracy, %"
SOLID, DASHED = {"strokeWidth": 2.4}, {"strokeWidth": 1.2, "strokeDash": [4, 3]}


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
    alone = len({row[field] for row in rows}) == 1  # A line through one point shows nothing.
    dense = [row for row in rows if row["series"] == "dense"]
    ticket = [row for row in rows if row["series"] == "ticket"]
    controls = [row for row in rows if row["series"] not in ("dense", "ticket")]
    point = alt.OverlayMarkDef(size=60, filled=True) if alone else False
    grey = alt.OverlayMarkDef(size=60, filled=True, style="dense-point") if alone else False
    hue = color(series)
    grounds = ((dense, {"style": "dense", "point": grey}, {}), (controls, {"point": point, **DASHED}, {"color": hue}))
    layers = [
        draw(own, "line", **marks).encode(**encodings, **colours)
        for own, marks, colours in (*grounds, (ticket, {"point": point, **SOLID}, {"color": hue}))
        if own
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


def color(series: Sequence[str]) -> alt.Color:
    return alt.Color("series:N", title=None, scale=alt.Scale(domain=list(series)))
