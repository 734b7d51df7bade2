"""The picture of a sensitivity: the metric without the units of each group, by the share that stays."""

from __future__ import annotations

import altair as alt
import vl_convert

from tombola.report.charts import specification
from tombola.report.theme import LIGHT, vega_config
from tombola.studies import Sensitivity


def sensitivity_picture(found: Sensitivity) -> str:
    """Draw a line for each group as SVG.

    Args:
        found: the groups at their densities.
    """
    scale, unit = (100, ", %") if found.measure.share else (1, "")
    rows = []
    for name, cuts in found.groups.items():
        rows.append({"group": name, "kept": 100.0, "metric": scale * found.metric})
        rows += [{"group": name, "kept": 100 * own.density, "metric": scale * own.metric} for own in cuts]
    mark = alt.MarkDef(type="line", strokeWidth=2, point=True)
    chart = alt.Chart(alt.Data(values=rows), mark=mark, width=520, height=300).encode(
        x=alt.X("kept:Q", title="units of the group that stay, %", scale=alt.Scale(reverse=True)),
        y=alt.Y("metric:Q", title=f"{found.measure.name} on the validation split{unit}", scale=alt.Scale(zero=False)),
        color=alt.Color("group:N", title="group cut alone", sort=list(found.groups), legend=alt.Legend(symbolLimit=60)),
        tooltip=["group:N", "kept:Q", "metric:Q"],
    )
    look = {"config": vega_config(LIGHT, 1) | {"background": LIGHT.card}, "padding": 10}
    return vl_convert.vegalite_to_svg(specification(chart) | look, vl_version="6.4")
