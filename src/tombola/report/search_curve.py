"""The picture of a search: density and validation metric by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from tombola.files import write_atomically
from tombola.report.charts import specification
from tombola.report.theme import LIGHT, vega_config

PANELS = {"density": "density, %", "validation_metric": "validation, %"}


def write_search_curve(history: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Write the picture of a search as SVG.

    Args:
        history: what the search noted by epoch.
        path: the file to write.

    Returns:
        Whether there is a picture: a search whose density does not change by epoch has none.
    """
    epochs = [row for row in history if "density" in row and all(_is_number(row.get(name, 0)) for name in PANELS)]
    if not epochs:
        return False
    panels = [_panel(epochs, field, title) for field, title in PANELS.items() if field in epochs[0]]
    look = {"config": vega_config(LIGHT, 1) | {"background": LIGHT.card}, "padding": 10}
    chart = specification(alt.VConcatChart(vconcat=panels)) | look
    write_atomically(path, vl_convert.vegalite_to_svg(chart, vl_version="6.4"))
    return True


def _panel(epochs: Sequence[Mapping[str, Any]], field: str, title: str) -> alt.Chart:
    """One curve over all epochs of the search; the density on a logarithmic axis."""
    numbered = enumerate(epochs, start=1)
    rows = [{"epoch": number, "value": 100 * row[field]} for number, row in numbered if field in row]
    scale = alt.Scale(type="log", nice=False) if field == "density" else alt.Scale(zero=False)
    mark = alt.MarkDef(type="line", strokeWidth=2.4, color=LIGHT.accent, point=len(rows) == 1)
    return alt.Chart(
        alt.Data(values=[row for row in rows if row["value"] > 0]), mark=mark, width=460, height=130
    ).encode(
        x=alt.X("epoch:Q", title="epoch of the search", axis=alt.Axis(tickMinStep=1, grid=False)),
        y=alt.Y("value:Q", title=title, scale=scale),
    )


def _is_number(value: Any) -> bool:
    """Whether a value from a file can be drawn in percent."""
    return isinstance(value, int | float) and abs(value) < 1e6
