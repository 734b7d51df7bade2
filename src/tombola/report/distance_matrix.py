"""The picture of distances: a square a pair of masks or of trained networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import vl_convert

from tombola.errors import TombolaError
from tombola.files import write_atomically
from tombola.report.charts import specification
from tombola.report.theme import LIGHT, vega_config

SIDE, WIDEST = 34, 460
"""Pixels of a square, and of the whole picture at most."""


def matrix_picture(names: Sequence[str], matrices: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Draw matrices of distances as SVG, one below the other, each with its own scale of colours.

    Args:
        names: of what is compared, each once.
        matrices: rows and columns in the order of the names, by the title of the picture.

    Raises:
        TombolaError: if a matrix has not as many rows and columns as there are names, or two names are equal.
    """
    if len({*names}) < len(names):
        raise TombolaError("two of the names are equal; give each row one of its own")
    for title, matrix in matrices.items():
        if len(matrix) != len(names) or any(len(row) != len(names) for row in matrix):
            raise TombolaError(f"the matrix '{title}' does not have {len(names)} rows and columns, one a name")
    look = {"config": vega_config(LIGHT, 1) | {"background": LIGHT.card}, "padding": 10}
    charts = [_panel(names, matrix, title) for title, matrix in matrices.items()]
    chart = alt.VConcatChart(vconcat=charts).resolve_scale(color="independent")
    return vl_convert.vegalite_to_svg(specification(chart) | look, vl_version="6.4")


def write_matrix(names: Sequence[str], matrices: Mapping[str, Sequence[Sequence[float]]], path: Path) -> None:
    """Write the picture of matrices of distances as SVG.

    Args:
        names: as of `matrix_picture`.
        matrices: as of `matrix_picture`.
        path: the file to write.
    """
    write_atomically(path, matrix_picture(names, matrices))


def _panel(names: Sequence[str], matrix: Sequence[Sequence[float]], title: str) -> alt.LayerChart:
    rows = [
        {"row": name, "column": other, "value": value, "text": f"{value:.2g}"}
        for name, of_row in zip(names, matrix, strict=True)
        for other, value in zip(names, of_row, strict=True)
    ]
    size, most = min(SIDE * len(names), WIDEST), max((row["value"] for row in rows), default=0.0)
    data, names = alt.Data(values=rows), list(names)
    x = alt.X("column:N", sort=names, title=None, axis=alt.Axis(labelAngle=-45))
    y = alt.Y("row:N", sort=names, title=None)
    colours = alt.Color("value:Q", scale=alt.Scale(range=[LIGHT.card, LIGHT.accent], domain=[0, most or 1]), title=None)
    squares = alt.Chart(data, mark=alt.MarkDef(type="rect"), width=size, height=size, title=title)
    figures = alt.Chart(data, mark=alt.MarkDef(type="text", fontSize=9, color=LIGHT.ink))
    layers = [squares.encode(x=x, y=y, color=colours)]
    if SIDE * len(names) <= WIDEST:
        layers.append(figures.encode(x=x, y=y, text=alt.Text("text:N")))
    return alt.LayerChart(layer=layers)
