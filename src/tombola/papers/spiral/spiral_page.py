"""The report of a search for the sparsest network: a page with pictures, and tables for the terminal."""

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


def write_sparsest(outcome: SparsestNetwork, pruning: Sequence[Fewest], folder: Path, *, command: str) -> Path:
    """Write the report of a search: sparsest.html, its pictures as SVG files, and sparsest.json.

    Args:
        outcome: the outcome of the search.
        pruning: the tickets of pruning methods beside it.
        folder: where the files are written; earlier ones are replaced.
        command: what the page says to type to make the report again.

    Returns:
        The path of the page.
    """
    charts = _charts(outcome, pruning)
    drawn = {key: specification(chart) | {"description": CAPTIONS[key]} for key, chart in charts.items()}
    look = {"config": vega_config(LIGHT, 1) | {"background": LIGHT.card}, "padding": 10}
    for key, chart in drawn.items():
        picture = vl_convert.vegalite_to_svg(json.dumps(chart | look | {"width": 440}), vl_version="6.4")
        write_atomically(folder / f"{key}.svg", picture)
    content = outcome.to_json() | {"pruning": [row.to_json(outcome.accuracy) for row in pruning]}
    write_atomically(folder / "sparsest.json", json.dumps(content))
    text = (
        environment(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            title=f"The sparsest network that learns {share(outcome.accuracy)} of the spiral",
            done=outcome,
            captions=CAPTIONS,
            colours=(POSITIVE, NEGATIVE),
            rates=_rates(outcome, len(outcome.tried)),
            counts=_by_count(outcome),
            values=_values(outcome.found),
            needed=_needed(pruning, outcome),
            command=command,
            **dressed(drawn, 1),
        )
    )
    page = folder / "sparsest.html"
    write_atomically(page, text)
    return page


def rates_table(outcome: SparsestNetwork) -> Table:
    """A table for the terminal: the networks found and the best other structures, with their hit rates."""
    return _printed(_rates(outcome, SHOWN), f"What reaches {share(outcome.accuracy)}, and how often")


def pruned_table(pruning: Sequence[Fewest], outcome: SparsestNetwork) -> Table:
    """A table for the terminal: how many weights each method's tickets need, and last those of the network found."""
    return _printed(_needed(pruning, outcome), f"Weights that tickets keep to reach {share(outcome.accuracy)}")


def _charts(outcome: SparsestNetwork, pruning: Sequence[Fewest]) -> dict[str, alt.TopLevelMixin]:
    charts: dict[str, alt.TopLevelMixin] = {}
    if outcome.found is not None:
        charts |= {"network": network_chart(outcome.found), "boundary": boundary_chart(outcome.found)}
    if outcome.tried:
        charts["rates"] = rates_chart(outcome)
    return charts | ({"pruned": pruned_chart(pruning, outcome)} if any(row.cells for row in pruning) else {})


def _rates(outcome: SparsestNetwork, shown: int) -> Grid:
    """First what reached the accuracy, the smallest first, then what came nearest; the networks found are marked."""
    hits = [tried for tried in outcome.tried if tried.hits(outcome.accuracy)]
    rest = sorted((tried for tried in outcome.tried if not tried.hits(outcome.accuracy)), key=lambda tried: -tried.best)
    ordered = [*hits, *rest]
    answers = {network.structure for network in (outcome.found, outcome.dense) if network is not None}
    # The sort is stable: the networks found come first, so that the cut never drops them.
    places = sorted(range(len(ordered)), key=lambda place: ordered[place].structure not in answers)[:shown]
    rows = [ordered[place] for place in sorted(places)]
    marked = frozenset(index for index, tried in enumerate(rows) if tried.structure in answers)
    return Grid(RATES, tuple(_rate(tried, outcome.accuracy) for tried in rows), marked=marked)


def _rate(tried: TriedStructure, accuracy: float) -> tuple[str, ...]:
    _, low, high = tried.rate(accuracy)
    hits, structure = tried.hits(accuracy), tried.structure
    sizes = (str(structure.weights), str(structure.size), f"{len(tried.accuracies):,}", f"{hits:,}")
    return (structure.name, *sizes, between(100 * low, 100 * high), f"{100 * tried.best:.2f}")


def _by_count(outcome: SparsestNetwork) -> Grid:
    """Structures that leave out single weights, a row for each number of weights."""
    by_count: dict[int, list[TriedStructure]] = {}
    for tried in outcome.tried:
        if tried.structure.supports is not None:
            by_count.setdefault(tried.structure.weights, []).append(tried)
    rows = []
    for weights, group in sorted(by_count.items()):
        runs = [accuracy for tried in group for accuracy in tried.accuracies]
        hits = sum(accuracy >= outcome.accuracy for accuracy in runs)
        rows.append((str(weights), f"{len(group):,}", f"{len(runs):,}", f"{hits:,}", f"{100 * max(runs):.2f}"))
    return Grid(("weights", "structures", "runs", "reach it", "best, %"), tuple(rows))


def _values(found: FoundNetwork | None) -> Grid:
    """Every weight and bias of the network found."""
    rows = []
    for name, value in found.values.items() if found else ():
        for unit, row in enumerate(value):
            numbers = row if isinstance(row, list) else [row]
            rows.append((f"{name}, unit {unit + 1}", ", ".join(f"{v:.3f}" if v else NOTHING for v in numbers)))
    return Grid(("unit", "values"), tuple(rows))


def _needed(pruning: Sequence[Fewest], outcome: SparsestNetwork) -> Grid:
    rows = []
    for row in pruning:
        fewest, at_995 = row.reaching(outcome.accuracy), row.reaching(0.995)
        sizes = (str(fewest.weights), str(fewest.size)) if fewest else (NOTHING, NOTHING)
        rows.append(
            (
                row.method,
                f"{len(row.cells):,}" + (f" of {len(row.cells) + row.left:,}" if row.left else ""),
                *sizes,
                str(at_995.weights) if at_995 else NOTHING,
                NOTHING if row.best is None else f"{100 * row.best:.2f}",
            )
        )
    if outcome.found is not None:
        structure, runs = outcome.found.structure, sum(len(tried.accuracies) for tried in outcome.tried)
        sizes = (str(structure.weights), str(structure.size))
        rows.append(("searched", f"{runs:,}", *sizes, NOTHING, f"{100 * outcome.found.accuracy:.2f}"))
    return Grid(NEEDED, tuple(rows), marked=frozenset({len(rows) - 1} if outcome.found else ()))


def _printed(content: Grid, title: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, header_style="bold")
    for index, heading in enumerate(content.head):
        table.add_column(heading, justify="left" if index == 0 else "right", overflow="fold")
    for index, row in enumerate(content.rows):
        table.add_row(*row, style="bold" if index in content.marked else "")
    return table
