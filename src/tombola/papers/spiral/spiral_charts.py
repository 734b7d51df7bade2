"""Charts of the sparsest network: its units and signed weights, its decision boundary, and what else was tried."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import altair as alt
import torch
from torch import Tensor

from tombola import zoo
from tombola.papers.spiral.pruned_cells import Fewest
from tombola.papers.spiral.search_outcome import FoundNetwork, SparsestNetwork
from tombola.papers.spiral.structures import LAYERS
from tombola.report.chart_rows import Row
from tombola.report.theme import LIGHT

POSITIVE, NEGATIVE = LIGHT.series[0], LIGHT.series[1]
CELLS, SHOWN = 160, 60
"""How many cells the plane has along each side; one point of how many is drawn."""

SIGNS, CLASSES = ["above 0", "below 0"], ["class 0", "class 1"]


def network_chart(found: FoundNetwork) -> alt.LayerChart:
    """Draw units in columns from the inputs to the output, and the weights between them: blue above 0, red below."""
    columns = (2, *found.structure.widths, 1)
    units: list[Row] = [
        {
            "id": (layer, unit),
            "x": layer,
            "y": _height(unit, count),
            "layer": _column(layer, len(columns)),
            "bias": None,
        }
        for layer, count in enumerate(columns)
        for unit in range(count)
    ]
    places = {unit["id"]: unit for unit in units}
    edges: list[Row] = []
    for layer, name in enumerate(LAYERS, start=1):
        for unit, bias in enumerate(found.values[f"{name}.bias"]):
            places[layer, unit]["bias"] = bias
        for unit, row in enumerate(found.values[f"{name}.weight"]):
            for source, weight in enumerate(row):
                if weight:
                    begin, end = places[layer - 1, source], places[layer, unit]
                    ends = {"x": begin["x"], "y": begin["y"], "x2": end["x"], "y2": end["y"]}
                    edges.append({**ends, "weight": weight, "sign": "above 0" if weight > 0 else "below 0"})
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=(-0.3, len(columns) - 0.7)))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=(-0.62, 0.62)))
    widest = max(abs(edge["weight"]) for edge in edges)
    lines = alt.Chart(alt.Data(values=edges), mark=alt.MarkDef(type="rule", opacity=0.9)).encode(
        x=x,
        y=y,
        x2=alt.X2("x2:Q"),
        y2=alt.Y2("y2:Q"),
        color=alt.Color("sign:N", title="weight", scale=alt.Scale(domain=SIGNS, range=[POSITIVE, NEGATIVE])),
        strokeWidth=alt.StrokeWidth("size:Q", legend=None, scale=alt.Scale(domain=(0, widest), range=(0.8, 6))),
        tooltip=[alt.Tooltip("weight:Q", format=".3f")],
    )
    lines = lines.transform_calculate(size="abs(datum.weight)")
    nodes = alt.Chart(
        alt.Data(values=[{key: value for key, value in unit.items() if key != "id"} for unit in units]),
        mark=alt.MarkDef(type="circle", size=320, opacity=1, fill=LIGHT.card, stroke=LIGHT.dense, strokeWidth=2),
    ).encode(x=x, y=y, tooltip=[alt.Tooltip("layer:N"), alt.Tooltip("bias:Q", format=".3f")])
    return alt.LayerChart(layer=[lines, nodes], width="container", height=300)


def boundary_chart(found: FoundNetwork) -> alt.LayerChart:
    """Draw the plane in the colours of the network's classes, and some of the points in those of their own."""
    inputs, targets = zoo.data("cubist-spiral")["train"]
    low, high = inputs.min(0).values - 0.15, inputs.max(0).values + 0.15
    across, up = (torch.linspace(float(low[i]), float(high[i]), CELLS + 1) for i in (0, 1))
    middles = [(axis[1:] + axis[:-1]) / 2 for axis in (across, up)]
    network, cells = found.network(), []
    for row, height in enumerate(middles[1]):
        signs = (network(torch.stack([middles[0], height.expand(CELLS)], 1))[:, 0] > 0).tolist()
        # Neighbouring cells of one class are one rectangle, which keeps the page small.
        for positive, run in groupby(range(CELLS), key=signs.__getitem__):
            columns = list(run)
            ends = {"x": float(across[columns[0]]), "x2": float(across[columns[-1] + 1])}
            cells.append({**ends, "y": float(up[row]), "y2": float(up[row + 1]), "side": CLASSES[positive]})
    points: list[Row] = [
        {"x": float(x), "y": float(y), "side": CLASSES[int(label)]}
        for (x, y), label in zip(inputs[::SHOWN], targets[::SHOWN], strict=True)
    ]
    colour = alt.Color("side:N", title=None, scale=alt.Scale(domain=CLASSES, range=[NEGATIVE, POSITIVE]))
    axes = [_axis(f"{name}:Q", low[i], high[i]) for i, name in enumerate("xy")]
    plane = alt.Chart(alt.Data(values=cells), mark=alt.MarkDef(type="rect", opacity=0.25)).encode(
        x=alt.X(**axes[0]), y=alt.Y(**axes[1]), x2=alt.X2("x2:Q"), y2=alt.Y2("y2:Q"), color=colour
    )
    dots = alt.Chart(alt.Data(values=points), mark=alt.MarkDef(type="circle", size=16, opacity=1)).encode(
        x=alt.X(**axes[0]), y=alt.Y(**axes[1]), color=colour
    )
    return alt.LayerChart(layer=[plane, dots], width="container", height=420)


def rates_chart(outcome: SparsestNetwork) -> alt.LayerChart:
    """Draw how often each structure without gaps reached the accuracy, with its interval, by weights and biases."""
    rows: list[Row] = []
    for tried in outcome.tried:
        if tried.structure.supports is None:
            rate, low, high = (100 * share for share in tried.rate(outcome.accuracy))
            place = {"size": tried.structure.size, "widths": tried.structure.name, "runs": len(tried.accuracies)}
            rows.append({**place, "rate": rate, "low": low, "high": high})
    x = alt.X("size:Q", title="weights and biases", scale=alt.Scale(zero=False), axis=alt.Axis(tickMinStep=1))
    tooltip = [
        alt.Tooltip("widths:N"),
        alt.Tooltip("runs:Q"),
        *(alt.Tooltip(f"{name}:Q", title=f"{name}, %", format=".1f") for name in ("rate", "low", "high")),
    ]
    data = alt.Data(values=rows)
    spans = alt.Chart(data, mark=alt.MarkDef(type="rule", opacity=0.35)).encode(
        x=x, y=alt.Y("low:Q", title="runs that reach it, %"), y2=alt.Y2("high:Q")
    )
    dots = alt.Chart(data, mark=alt.MarkDef(type="point", filled=True, size=50, opacity=0.9)).encode(
        x=x, y=alt.Y("rate:Q", title="runs that reach it, %"), tooltip=tooltip
    )
    return alt.LayerChart(layer=[spans, dots], width="container", height=260)


def pruned_chart(pruning: Sequence[Fewest], outcome: SparsestNetwork) -> alt.LayerChart:
    """Draw the best accuracy of each method's tickets by the weights they keep; a vertical line marks the search's."""
    rows: list[Row] = []
    for row in pruning:
        for weights in sorted({cell.weights for cell in row.cells}):
            best = max(cell.accuracy for cell in row.cells if cell.weights == weights)
            rows.append({"method": row.method, "weights": weights, "accuracy": 100 * best})
    colour = alt.Color("method:N", title=None)
    curves = alt.Chart(alt.Data(values=rows), mark=alt.MarkDef(type="line", point=True)).encode(
        x=alt.X("weights:Q", title="weights kept", scale=alt.Scale(zero=False)),
        y=alt.Y("accuracy:Q", title="best accuracy, %", scale=alt.Scale(zero=False)),
        color=colour,
        tooltip=[alt.Tooltip("method:N"), alt.Tooltip("weights:Q"), alt.Tooltip("accuracy:Q", format=".2f")],
    )
    target = alt.Chart(alt.Data(values=[{}]), mark=alt.MarkDef(type="rule", style="dense")).encode(
        y=alt.datum(100 * outcome.accuracy)
    )
    layers = [curves, target]
    if outcome.found is not None:
        searched = alt.Chart(alt.Data(values=[{}]), mark=alt.MarkDef(type="rule", color=LIGHT.good, strokeWidth=2))
        layers.append(searched.encode(x=alt.datum(outcome.found.structure.weights)))
    return alt.LayerChart(layer=layers, width="container", height=300)


def _height(unit: int, count: int) -> float:
    """The height of a unit; the units of a layer are spread evenly around the middle."""
    return (count - 1) / (2 * max(count, 4)) - unit / max(count, 4)


def _column(layer: int, count: int) -> str:
    return "input" if layer == 0 else "output" if layer == count - 1 else f"hidden layer {layer}"


def _axis(field: str, low: Tensor, high: Tensor) -> dict[str, Any]:
    scale = alt.Scale(domain=(float(low), float(high)), nice=False)
    return {"shorthand": field, "title": None, "scale": scale, "axis": alt.Axis(grid=False)}
