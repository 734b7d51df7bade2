"""Methods against each other in a report: the order, every pair, and a picture of who was not told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
from rich.text import Text

from tombola.evidence import SIGNS, Ranking, interval_text
from tombola.report.charts import draw
from tombola.report.page_tables import Grid
from tombola.report.prose import NOTHING, counted, number, probability
from tombola.terminal_table import Column, TerminalTable

Row = dict[str, Any]
COST = "Cost: search and training, in dense epochs."
LEFT = 0.9
"""Where the axis of ranks begins."""


def ranking_table(rankings: Sequence[Ranking]) -> TerminalTable:
    """For the terminal: the methods of each ranking in order."""
    caption = f"Methods that share a letter were not told apart. {SIGNS}. {COST}"
    caption = " ".join(filter(None, [caption, equal_cost_note(rankings)]))
    columns = (
        Column("method", left=True, least=10),
        Column("group", left=True),
        Column("mean"),
        Column("cost", drop=1),
        Column("mean rank", drop=2),
    )
    table = TerminalTable(columns, title="Ranking", caption=caption)
    for ranking in rankings:
        table.add(Text(f"{ranking.title}, {counted(len(ranking.seeds), 'seed')}", style="italic"), "", "", "", "")
        for index, (method, mean, rank, group, cost, _) in enumerate(_order(ranking)):
            table.add(f"  {method}", group, mean, cost, rank, end=index == len(ranking.places) - 1)
    return table


def equal_cost_note(rankings: Sequence[Ranking]) -> str:
    """What is trained for longer in the rankings at equal cost; "" without one."""
    at_equal_cost = [own for own in rankings if own.equal_cost]
    if not at_equal_cost:
        return ""
    has_dense = all(any(place.method == "dense" for place in own.places) for own in at_equal_cost)
    dense = "and the dense network" if has_dense else "(but not the dense network)"
    return (
        f"At equal cost, the cheaper methods {dense} train for as many more epochs as the search and training of the "
        "dearest method leave them."
    )


def order_grid(ranking: Ranking) -> Grid:
    """For the page: one row for each method, the best mean first."""
    head = ("method", "mean", "mean rank", "group", "cost, dense epochs", "no cheaper one is better")
    return Grid(head, tuple(_order(ranking)))


def pairs_grid(ranking: Ranking) -> Grid:
    """For the page: one row for each pair, with its corrected interval."""
    rows = (
        (
            f"{pair.method} − {pair.comparison.against}",
            str(len(pair.comparison.differences)),
            pair.comparison.measure.signed(pair.comparison.mean),
            interval_text(pair.comparison),
            probability(pair.comparison),
            pair.comparison.outcome,
        )
        for pair in ranking.pairs
    )
    head = ("pair", "seeds", f"difference, {ranking.measure.unit}", "corrected interval", "p (Holm)", "the first is")
    return Grid(head, tuple(rows))


def critical_difference_chart(ranking: Ranking) -> alt.LayerChart:
    """Methods at their mean ranks, a row each; a bar to the right joins those of a group, which were not told apart.

    The form follows Demšar's (JMLR, 2006), with a row for each method, so that no name hides another. What joins
    methods here is that no pair of them differs in its own paired test.
    """
    order = [place.method for place in ranking.places]
    groups = [(group, len(order) + 0.3 * column) for column, group in enumerate(_bars(ranking), start=1)]
    points: list[Row] = [{"method": place.method, "rank": place.rank, "from": LEFT} for place in ranking.places]
    bars = [{"first": group[0], "last": group[-1], "at": at} for group, at in groups]
    members = [{"method": name, "at": at} for group, at in groups for name in group]
    title = "mean rank over seeds (1 is best)"
    ticks = alt.Axis(values=list(range(1, len(order) + 1)), format="d")
    scale = alt.Scale(domain=(LEFT, len(order) + 0.3 * (len(groups) + 1)), nice=False, zero=False)
    x, start, aside = (alt.X(f"{name}:Q", title=title, axis=ticks, scale=scale) for name in ("rank", "from", "at"))
    axis = alt.Axis(labelLimit=260, grid=False, ticks=False, domain=False)
    y = alt.Y("method:N", title=None, sort=order, axis=axis, scale=alt.Scale(domain=order))
    tip = [alt.Tooltip("method:N"), alt.Tooltip("rank:Q", title="mean rank", format=".2f")]
    layers = [
        draw(points, "rule", style="dense", strokeWidth=1).encode(x=start, x2="rank", y=y),
        draw(points, "point", filled=True, size=80, opacity=1, style="ranked").encode(x=x, y=y, tooltip=tip),
        draw(bars, "rule", strokeWidth=3, style="ranked").encode(x=aside, y=alt.Y("first:N"), y2="last"),
        draw(members, "point", filled=True, size=45, opacity=1, style="ranked").encode(x=aside, y=y),
    ]
    return alt.LayerChart(layer=layers if bars else layers[:2], height=26 * len(order), width="container")


def _bars(ranking: Ranking) -> list[tuple[str, ...]]:
    """The groups of several methods."""
    return [group for group in ranking.groups if len(group) > 1]


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
