"""The sparsest network in a report: its page with pictures, and its tables for page and terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import vl_convert
from rich.box import SIMPLE_HEAD
from rich.table import Table

from tombola.files import write_atomically
from tombola.papers.spiral.pruned_cells import Fewest
from tombola.papers.spiral.search_outcome import FoundNetwork, SparsestNetwork, TriedStructure
from tombola.papers.spiral.spiral_charts import (
    NEGATIVE,
    POSITIVE,
    boundary_chart,
    network_chart,
    pruned_chart,
    rates_chart,
)
from tombola.report.charts import specification
from tombola.report.html_page import dressed, environment
from tombola.report.page_tables import Grid
from tombola.report.prose import NOTHING, between, share
from tombola.report.theme import LIGHT, vega_config

SHOWN = 12
RATES = ("structure", "weights", "weights, biases", "runs", "reach it", "95 % interval, %", "best, %")
NEEDED = ("method", "runs", "fewest weights", "with biases", "at 99.5 %", "best, %")
CAPTIONS = {
    "network": "The network found",
    "boundary": "Where it draws the line",
    "rates": "Structures of whole widths",
    "pruned": "Tickets of pruning methods",
}


def write_sparsest(done: SparsestNetwork, others: Sequence[Fewest], folder: Path, *, command: str) -> Path:
    """Write sparsest.html, its pictures as SVG and sparsest.json into a folder; returns the page's path."""
    charts = _charts(done, others)
    drawn = {key: specification(chart) | {"description": CAPTIONS[key]} for key, chart in charts.items()}
    look = {"config": vega_config(LIGHT, 1) | {"background": LIGHT.card}, "padding": 10}
    for key, chart in drawn.items():
        picture = vl_convert.vegalite_to_svg(json.dumps(chart | look | {"width": 440}), vl_version="6.4")
        write_atomically(folder / f"{key}.svg", picture)
    content = done.to_json() | {"pruning": [own.to_json(done.accuracy) for own in others]}
    write_atomically(folder / "sparsest.json", json.dumps(content))
    text = (
        environment(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            title=f"The sparsest network that learns {share(done.accuracy)} of the spiral",
            done=done,
            captions=CAPTIONS,
            colours=(POSITIVE, NEGATIVE),
            rates=_rates(done, len(done.tried)),
            counts=_by_count(done),
            values=_values(done.found),
            needed=_needed(others, done),
            command=command,
            **dressed(drawn, 1),
        )
    )
    page = folder / "sparsest.html"
    write_atomically(page, text)
    return page


def rates_table(done: SparsestNetwork) -> Table:
    """For the terminal: the answers and the structures nearest to them, with how often each reached the accuracy."""
    return _printed(_rates(done, SHOWN), f"What reaches {share(done.accuracy)}, and how often")


def pruned_table(others: Sequence[Fewest], done: SparsestNetwork) -> Table:
    """For the terminal: how many weights each method's tickets need, and the network found below them."""
    return _printed(_needed(others, done), f"Weights that tickets keep to reach {share(done.accuracy)}")


def _charts(done: SparsestNetwork, others: Sequence[Fewest]) -> dict[str, alt.TopLevelMixin]:
    charts: dict[str, alt.TopLevelMixin] = {}
    if done.found is not None:
        charts |= {"network": network_chart(done.found), "boundary": boundary_chart(done.found)}
    if done.tried:
        charts["rates"] = rates_chart(done)
    return charts | ({"pruned": pruned_chart(others, done)} if any(own.cells for own in others) else {})


def _rates(done: SparsestNetwork, shown: int) -> Grid:
    """The smallest that reached the accuracy first, then what came nearest; those found, never left out, are marked."""
    hits = [own for own in done.tried if own.hits(done.accuracy)]
    rest = sorted((own for own in done.tried if not own.hits(done.accuracy)), key=lambda own: -own.best)
    ordered = [*hits, *rest]
    answers = {own.structure for own in (done.found, done.dense) if own is not None}
    places = sorted(range(len(ordered)), key=lambda at: ordered[at].structure not in answers)[:shown]
    rows = [ordered[at] for at in sorted(places)]
    marked = frozenset(index for index, own in enumerate(rows) if own.structure in answers)
    return Grid(RATES, tuple(_rate(own, done.accuracy) for own in rows), marked=marked)


def _rate(own: TriedStructure, accuracy: float) -> tuple[str, ...]:
    _, low, high = own.rate(accuracy)
    hits, structure = own.hits(accuracy), own.structure
    sizes = (str(structure.weights), str(structure.size), f"{len(own.accuracies):,}", f"{hits:,}")
    return (structure.name, *sizes, between(100 * low, 100 * high), f"{100 * own.best:.2f}")


def _by_count(done: SparsestNetwork) -> Grid:
    """Structures that leave out single weights, all of one number of weights together."""
    counts: dict[int, list[TriedStructure]] = {}
    for own in done.tried:
        if own.structure.supports is not None:
            counts.setdefault(own.structure.weights, []).append(own)
    rows = []
    for weights, own in sorted(counts.items()):
        runs = [accuracy for tried in own for accuracy in tried.accuracies]
        hits = sum(accuracy >= done.accuracy for accuracy in runs)
        rows.append((str(weights), f"{len(own):,}", f"{len(runs):,}", f"{hits:,}", f"{100 * max(runs):.2f}"))
    return Grid(("weights", "structures", "runs", "reach it", "best, %"), tuple(rows))


def _values(found: FoundNetwork | None) -> Grid:
    """Every weight and bias of the network found."""
    rows = []
    for name, own in found.values.items() if found else ():
        for unit, row in enumerate(own):
            numbers = row if isinstance(row, list) else [row]
            rows.append((f"{name}, unit {unit + 1}", ", ".join(f"{v:.3f}" if v else NOTHING for v in numbers)))
    return Grid(("unit", "values"), tuple(rows))


def _needed(others: Sequence[Fewest], done: SparsestNetwork) -> Grid:
    rows = []
    for own in others:
        here, there = own.reaching(done.accuracy), own.reaching(0.995)
        sizes = (str(here.weights), str(here.size)) if here else (NOTHING, NOTHING)
        rows.append(
            (
                own.method,
                f"{len(own.cells):,}" + (f" of {len(own.cells) + own.left:,}" if own.left else ""),
                *sizes,
                str(there.weights) if there else NOTHING,
                NOTHING if own.best is None else f"{100 * own.best:.2f}",
            )
        )
    if done.found is not None:
        structure, runs = done.found.structure, sum(len(own.accuracies) for own in done.tried)
        sizes = (str(structure.weights), str(structure.size))
        rows.append(("searched", f"{runs:,}", *sizes, NOTHING, f"{100 * done.found.accuracy:.2f}"))
    return Grid(NEEDED, tuple(rows), marked=frozenset({len(rows) - 1} if done.found else ()))


def _printed(content: Grid, title: str) -> Table:
    drawn = Table(title=title, box=SIMPLE_HEAD, header_style="bold")
    for index, heading in enumerate(content.head):
        drawn.add_column(heading, justify="left" if index == 0 else "right", overflow="fold")
    for index, row in enumerate(content.rows):
        drawn.add_row(*row, style="bold" if index in content.marked else "")
    return drawn
