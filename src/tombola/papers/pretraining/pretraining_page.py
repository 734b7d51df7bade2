"""The table, charts and page of a study of how much pre-training was enough."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import torch
import vl_convert
from rich.box import SIMPLE_HEAD
from rich.table import Table

from tombola.files import write_atomically
from tombola.methods import NeuronPicks
from tombola.papers.pretraining.pretraining_study import EnoughStudy
from tombola.papers.pretraining.theory import bound_rows
from tombola.report.chart_rows import Row
from tombola.report.charts import specification
from tombola.report.html_page import dressed, environment
from tombola.report.page_tables import Grid
from tombola.report.panels import Figure, LegendEntry, Panel
from tombola.report.prose import NOTHING, counted
from tombola.report.shared_settings import flat
from tombola.report.theme import LIGHT, vega_config


def enough_table(study: EnoughStudy) -> Table:
    """A table for the terminal: what was measured and what the formula says, a row for each size."""
    table = Table(*_head(study), box=SIMPLE_HEAD, header_style="bold", title="How much pre-training was enough")
    for row in enough_grid(study).rows:
        table.add_row(*row)
    return table


def enough_grid(study: EnoughStudy) -> Grid:
    """The same table for the page."""
    return Grid(_head(study), tuple(_row(study, size) for size in study.sizes))


def enough_sentences(study: EnoughStudy) -> list[str]:
    """The outcome in plain words: the steps of each size, how they grow, and what the formula says."""
    by_size = [
        f"{size:,} examples: enough after {study.steps[size]:,.0f} steps"
        + ("" if study.settled[size] == study.seeds else ", at least: tickets may still get better")
        for size in study.sizes
    ]
    sentences = ["; ".join(by_size) + f" ({counted(study.seeds, 'seed')})."]
    growth = study.growth
    if growth is not None:
        sign = "−" if growth.slope < 0 else "+"
        misfits = f"{growth.power_misfit:.2f}", f"{growth.logarithm_misfit:.2f}"
        nearer = "power law" if growth.power_misfit < growth.logarithm_misfit else "logarithm"
        which = "neither is nearer" if misfits[0] == misfits[1] else f"the {nearer} is nearer"
        line = f"{growth.offset:.3g} {sign} {abs(growth.slope):.3g} · ln examples"
        sentences.append(
            f"The steps grow as examples^{growth.exponent:.2f} (misfit {misfits[0]}) or as {line} (misfit "
            f"{misfits[1]}); {which}."
        )
    largest, formula = study.sizes[-1], study.own.formula
    unfitted, fitted = study.said(largest, formula), study.fitted(largest)
    predicted = study.said(largest, fitted)
    steps = "nothing" if unfitted is None else f"{unfitted:,.0f} steps"
    start = f"With c = {formula.constant:g} the formula says {steps} for {largest:,} examples"
    start += ", which is a formula and not a prediction" if formula.constant == 1 else ""
    if study.picks == 1:
        return [*sentences, f"{start}; for a single pick no c makes it say more."]
    if fitted is None or predicted is None:
        return [*sentences, f"{start}; smaller sizes are needed to fit c."]
    return [*sentences, f"{start}; with c = {fitted.constant:.3g} of the smaller sizes it predicts {predicted:,.0f}."]


def write_enough(
    study: EnoughStudy, folder: Path, *, title: str, command: str = "", task: Mapping[str, Any] = {}
) -> Path:
    """Write the page of a study, and its charts as PNG files.

    Args:
        study: the study.
        folder: where enough.html and the charts are written; earlier ones are replaced.
        title: of the page.
        command: what the page says to type to make it again.
        task: data, network and recipe, for the page's table of settings.

    Returns:
        The path of the page.
    """
    figures = {"curves": _curves(study), "growth": _growth(study), "bounds": _bounds(study)}
    charts = {panel.key: panel.chart for figure in figures.values() for panel in figure.panels}
    page = (
        environment(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            title=title,
            sentences=enough_sentences(study),
            table=enough_grid(study),
            figures=figures,
            command=command,
            task=flat(task),
            **dressed(charts, 1),
        )
    )
    path = folder / "enough.html"
    write_atomically(path, page)
    look = {"config": vega_config(LIGHT, 1) | {"background": LIGHT.card}, "padding": 20, "width": 460}
    for key, chart in charts.items():
        picture = vl_convert.vegalite_to_png(json.dumps(chart | look), vl_version="6.4", scale=2)
        write_atomically(folder / f"{key}.png", picture)
    return path


def _head(study: EnoughStudy) -> tuple[str, ...]:
    formula = f"formula with c = {study.own.formula.constant:g}"
    return "examples", "enough after, steps", "settled", formula, "predicted", "with c ="


def _row(study: EnoughStudy, size: int) -> tuple[str, ...]:
    fitted = study.fitted(size)
    both = (study.said(size, formula) for formula in (study.own.formula, fitted))
    unfitted, predicted = (NOTHING if steps is None else f"{steps:,.0f}" for steps in both)
    constant = NOTHING if fitted is None else f"{fitted.constant:.3g}"
    settled = f"{study.settled[size]} of {study.seeds}"
    return f"{size:,}", f"{study.steps[size]:,.0f}", settled, unfitted, predicted, constant


def _curves(study: EnoughStudy) -> Figure:
    series = [f"{size:,} examples" for size in study.sizes]
    titles = {"ticket": "Tickets", "whole": "The whole network"}
    rows = {
        key: [
            {"series": name, "x": row["step"], "y": 100 * row[key]}
            for name, size in zip(series, study.sizes, strict=True)
            for row in study.mean(size)
        ]
        for key in titles
    }
    panels = [
        _panel(
            key,
            title,
            f"Validation metric by steps of pre-training: {title.lower()}, a line a size",
            _lines(rows[key], series, "steps of pre-training", "validation, %", log_y=False),
        )
        for key, title in titles.items()
    ]
    return _figure(panels, series)


def _growth(study: EnoughStudy) -> Figure:
    growth = study.growth
    if growth is None:
        return Figure((), ())
    series = ["measured", "power law", "logarithm", "predicted with c of smaller sizes"]
    rows: list[Row] = [{"series": series[0], "x": size, "y": study.steps[size]} for size in study.sizes]
    rows += [{"series": series[1], "x": size, "y": growth.power_law(size)} for size in study.sizes]
    rows += [{"series": series[2], "x": size, "y": growth.logarithm(size)} for size in study.sizes]
    predicted = ((size, study.said(size, study.fitted(size))) for size in study.sizes)
    rows += [{"series": series[3], "x": size, "y": steps} for size, steps in predicted if steps is not None]
    label = "Steps that were enough against the number of examples, with two laws and the formula"
    chart = _lines(rows, series, "examples", "steps", log_y=True)
    return _figure([_panel("growth", "Steps that were enough", label, chart)], series)


def _bounds(study: EnoughStudy) -> Figure:
    # The bounds are proved only where a neuron may be picked again.
    if not study.own.repeat:
        return Figure((), ())
    run = next(run for run in study.runs if run.examples == study.sizes[-1])
    losses = torch.tensor(run.last["losses"], dtype=torch.float64)
    picked = NeuronPicks(torch.zeros(len(losses), dtype=torch.long), losses, 1, run.last["whole"], run.last["variance"])
    rows = [{"series": row["series"], "x": row["picks"], "y": row["loss"]} for row in bound_rows(picked)]
    series = list(dict.fromkeys(str(row["series"]) for row in rows))
    chart = _lines(rows, series, "picks", "½ mean squared error", log_y=True)
    label = "Loss of greedy selection after each pick, with the bounds (B) and (C)"
    return _figure([_panel("bounds", f"{run.examples:,} examples", label, chart)], series)


def _lines(rows: Sequence[Row], series: Sequence[str], x: str, y: str, *, log_y: bool) -> alt.LayerChart:
    """Lines with points on a logarithmic x axis."""
    scale = alt.Scale(type="log", nice=False) if log_y else alt.Scale(zero=False)
    encodings: dict[str, Any] = {
        "x": alt.X("x:Q", title=x, scale=alt.Scale(type="log", nice=False), axis=alt.Axis(grid=False, tickCount=6)),
        "y": alt.Y("y:Q", title=y, scale=scale),
        "color": alt.Color("series:N", title=None, scale=alt.Scale(domain=list(series))),
        "tooltip": [
            alt.Tooltip("series:N", title="line"),
            alt.Tooltip("x:Q", title=x, format=",.4~g"),
            alt.Tooltip("y:Q", title=y, format=",.4~g"),
        ],
    }
    data = alt.Data(values=list(rows))
    line = alt.Chart(data, mark=alt.MarkDef(type="line", strokeWidth=2)).encode(**encodings)
    point = alt.Chart(data, mark=alt.MarkDef(type="point", filled=True, size=34, opacity=1)).encode(**encodings)
    return alt.LayerChart(layer=[line, point], height=240, width="container")


def _panel(key: str, title: str, label: str, chart: alt.LayerChart) -> Panel:
    return Panel(key, title, specification(chart) | {"description": label})


def _figure(panels: Sequence[Panel], series: Sequence[str]) -> Figure:
    return Figure(tuple(panels), tuple(LegendEntry(name, "series", index) for index, name in enumerate(series)))
