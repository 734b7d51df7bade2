"""The picture of lines between trained networks: the metric on the way from one to the other, by point of training."""

from __future__ import annotations

from statistics import fmean

import altair as alt
import vl_convert

from tombola.connectivity import Stability
from tombola.report.charts import specification
from tombola.report.theme import LIGHT, vega_config


def lines_picture(found: Stability) -> str:
    """Draw the mean line of each point as SVG, a panel for each split and treatment of statistics.

    Args:
        found: the lines.
    """
    panels: dict[str, list[dict[str, str | float]]] = {}
    for point in found.points:
        for lines in zip(*(pair.lines for pair in point.pairs), strict=True):
            line = lines[0]
            title = line.split + (f", statistics {line.statistics}" if line.statistics != "none" else "")
            rows = panels.setdefault(title, [])
            for at in range(len(line.metrics)):
                metric = line.measure.scale * fmean(own.metrics[at] for own in lines)
                rows.append({"alpha": at / (len(line.metrics) - 1), "metric": metric, "from": point.at})
    look = {"config": vega_config(LIGHT, 1) | {"background": LIGHT.card}, "padding": 10}
    order, measure = [point.at for point in found.points], found.points[0].measure
    axis = f"{measure.name}, %" if measure.share else measure.name
    chart = alt.VConcatChart(vconcat=[_panel(rows, title, axis, order) for title, rows in panels.items()])
    return vl_convert.vegalite_to_svg(specification(chart) | look, vl_version="6.4")


def _panel(rows: list[dict[str, str | float]], title: str, axis: str, order: list[str]) -> alt.Chart:
    mark = alt.MarkDef(type="line", strokeWidth=2.4)
    return alt.Chart(alt.Data(values=rows), mark=mark, width=460, height=180, title=title).encode(
        x=alt.X("alpha:Q", title="from one copy to the other", axis=alt.Axis(grid=False)),
        y=alt.Y("metric:Q", title=axis, scale=alt.Scale(zero=False)),
        color=alt.Color("from:N", title="trained from", sort=order),
    )
