"""Methods against each other in a report: the order, every pair, and a picture of who cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
from rich.box import SIMPLE_HEAD
from rich.table import Table

from tombola.evidence import Ranking, interval_text
from tombola.report.charts import draw
from tombola.report.page_tables import Grid
from tombola.report.prose import NOTHING, number, probability

Row = dict[str, Any]


def ranking_table(rankings: Sequence[Ranking]) -> Table:
    """For the terminal: the methods of each ranking in order."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), title="Ranking")
    table.caption = "Methods that share a letter cannot be told apart. Cost: search and training, in dense epochs."
    table.caption_justify = "left"
    for heading in ("by", "method", "mean", "mean rank", "group", "cost"):
        table.add_column(heading, justify="left" if heading in ("by", "method", "group") else "right")
    for ranking in rankings:
        for index, row in enumerate(_order(ranking)):
            last = index == len(ranking.places) - 1
            table.add_row(ranking.title if index == 0 else "", *row[:5], end_section=last)
    return table


def order_grid(ranking: Ranking) -> Grid:
    """For the page: one row for each method, the best mean first."""
    head = ("method", "mean", "mean rank", "group", "cost, dense epochs", "no cheaper one is better")
    return Grid(head, tuple(_order(ranking)))


def pairs_grid(ranking: Ranking) -> Grid:
    """For the page: one row for each pair, with its corrected interval."""
    rows = (
        (
            f"{pair.method} − {pair.comparison.against}",
            pair.comparison.measure.signed(pair.comparison.mean),
            interval_text(pair.comparison),
            probability(pair.comparison),
            pair.comparison.outcome,
        )
        for pair in ranking.pairs
    )
    head = ("pair", f"difference, {ranking.measure.unit}", "corrected interval", "p (Holm)", "the first is")
    return Grid(head, tuple(rows))


def critical_difference_chart(ranking: Ranking) -> alt.LayerChart:
    """Methods at their mean ranks, the best on the left; a bar joins those of a group, which cannot be told apart.

    The form is Demšar's (JMLR, 2006); what joins methods here is that no pair of them differs in its own paired test.
    """
    ranks = {place.method: place.rank for place in ranking.places}
    joined = [group for group in ranking.groups if len(group) > 1]
    points: list[Row] = [{"method": name, "rank": rank, "line": 0} for name, rank in ranks.items()]
    bars = [
        {"low": min(own), "high": max(own), "line": line + 1}
        for line, group in enumerate(joined)
        for own in [[ranks[name] for name in group]]
    ]
    members = [
        {"method": name, "rank": ranks[name], "line": line + 1} for line, group in enumerate(joined) for name in group
    ]
    x = alt.X("rank:Q", title="mean rank over seeds (1 is best)", scale=alt.Scale(domain=(0.7, len(ranks) + 0.3)))
    y = alt.Y("line:Q", title=None, axis=None, scale=alt.Scale(domain=(len(joined) + 0.6, -0.4)))
    tip = [alt.Tooltip("method:N"), alt.Tooltip("rank:Q", title="mean rank", format=".2f")]
    layers = [
        draw(points, "point", filled=True, size=60, opacity=1).encode(x=x, y=y, tooltip=tip),
        draw(points, "text", angle=315, align="left", dx=6, dy=-4).encode(x=x, y=y, text="method:N"),
        draw(bars, "rule", strokeWidth=4).encode(x=alt.X("low:Q"), x2="high:Q", y=y),
        draw(members, "point", filled=True, size=45, opacity=1).encode(x=x, y=y, tooltip=tip),
    ]
    return alt.LayerChart(layer=layers if bars else layers[:2], height=90 + 16 * len(joined), width="container")


def _order(ranking: Ranking) -> list[tuple[str, ...]]:
    worth = ranking.cheapest_equals
    return [
        (
            place.method,
            ranking.measure.text(place.mean),
            f"{place.rank:.2f}",
            place.groups,
            NOTHING if place.cost is None else number(place.cost),
            "yes" if place.method in worth else "",
        )
        for place in ranking.places
    ]
