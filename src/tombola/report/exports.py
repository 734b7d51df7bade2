"""A report's figures as SVG, PDF and PNG, in the light theme."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import vl_convert

from tombola.report import sanity_tables
from tombola.report.arms import GatheredArms
from tombola.report.charts import differences_chart, specification
from tombola.report.panels import Figure
from tombola.report.theme import LIGHT, vega_config

WIDTH = 340
COLUMNS = {"accuracy": 2, "differences": 2}
"""Panels side by side; three where nothing is said."""


@dataclass(frozen=True)
class Export:
    """One figure in the formats that other programs read.

    Args:
        svg: as text.
        pdf: as bytes.
        png: as bytes, at twice the size.
    """

    svg: str
    pdf: bytes
    png: bytes

    @property
    def files(self) -> dict[str, str | bytes]:
        """What is written, by the ending of its name."""
        return {"svg": self.svg, "pdf": self.pdf, "png": self.png}


def exports(study: GatheredArms, drawn: Mapping[str, Figure]) -> dict[str, Export]:
    """Every figure that shows something.

    Args:
        study: the content of the report.
        drawn: what `figures` made of it.
    """
    config = vega_config(LIGHT, len(study.densities)) | {"background": LIGHT.card}
    made = {name: export(page_of(name, figure, config)) for name, figure in drawn.items() if figure.panels}
    return made | ({"sanity": export(_sanity(study, config))} if study.sanity else {})


def export(page: Mapping[str, Any]) -> Export:
    """A whole Vega-Lite specification, drawn once."""
    svg = vl_convert.vegalite_to_svg(json.dumps(page), vl_version="6.4")
    return Export(svg, vl_convert.svg_to_pdf(svg), vl_convert.svg_to_png(svg, scale=2))


def page_of(
    name: str, figure: Figure, config: Mapping[str, Any], width: int = WIDTH, padding: int = 20, columns: int = 0
) -> dict[str, Any]:
    """A figure's panels as one specification.

    Args:
        name: of the figure.
        figure: its panels and legend.
        config: Vega-Lite's settings.
        width: of a panel, in pixels.
        padding: around all of it, in pixels.
        columns: panels side by side; if 0, as many as the page shows.
    """
    columns = columns or COLUMNS.get(name, 3)
    alone = len(figure.panels) == 1 and columns > 1
    page: dict[str, Any] = {
        "concat": [panel.chart | {"width": width * (1 + alone), "title": panel.title} for panel in figure.panels],
        "columns": columns,
        "spacing": 36,
        "resolve": {"scale": {"color": "shared", "shape": "shared"}},
        "config": config,
        "padding": padding,
    }
    # Vega-Lite's legends show colours of data only, so the title explains what is grey and what stands at an edge.
    grey = [f"grey: {entry.text}" for entry in figure.legend if entry.kind in ("band", "dense")]
    grey += [f"hollow: {entry.text}" for entry in figure.legend if entry.kind == "beyond"]
    return page | ({"title": {"text": "; ".join(grey), "fontSize": 11, "fontWeight": "normal"}} if grey else {})


def _sanity(study: GatheredArms, config: Mapping[str, Any]) -> dict[str, Any]:
    """Ticket minus control of every sanity check, with its interval."""
    colours = {finding: getattr(LIGHT, name) for finding, name in sanity_tables.COLOURS.items()}
    chart = specification(differences_chart(sanity_tables.difference_rows(study), colours, "ticket − control"))
    return chart | {"config": config, "padding": 20}
