"""Sanity checks in a report: which method passes which, as tables and rows of a chart."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from tombola.evidence import Checked
from tombola.evidence.sanity_outcomes import Finding
from tombola.report.arms import GatheredArms
from tombola.report.chart_rows import Row, finite
from tombola.report.page_tables import Grid
from tombola.report.prose import NOTHING, between, points, probability, share
from tombola.terminal_table import Column, TerminalTable

MARKS: Mapping[Finding, str] = {"passes": "✓", "fails": "✗", "undecided": "?", "does not apply": NOTHING}
STYLES: Mapping[Finding, str] = {"passes": "green", "fails": "red", "undecided": "yellow", "does not apply": ""}
COLOURS: Mapping[str, str] = {"passes": "good", "fails": "bad", "undecided": "unsure"}
"""The colour of a theme for each finding."""


def sanity_table(study: GatheredArms) -> TerminalTable:
    """For the terminal: one row for each method and density, one column for each check."""
    checks = [Column(name.replace("-", "-\n"), drop=place) for place, name in enumerate(_checks(study))]
    table = TerminalTable(
        (Column("method", left=True, least=10), Column("density"), *checks),
        title="Sanity checks: ticket minus control, points",
        caption="✓ passes   ✗ fails   ? undecided   – does not apply",
    )
    for sanity in study.sanity:
        cells = (Text(_cell(check), style=STYLES[check.finding]) for check in sanity.checks)
        table.add(sanity.subject, share(sanity.density), *cells)
    return table


def overview(study: GatheredArms) -> Grid:
    """For the page: one row for each method and density, one column for each check."""
    rows = (
        (sanity.subject, share(sanity.density), str(len(sanity.seeds)), *(_cell(check) for check in sanity.checks))
        for sanity in study.sanity
    )
    return Grid(("method", "density", "seeds", *_checks(study)), tuple(rows))


def differences(study: GatheredArms) -> Grid:
    """For the page: each check of each method and density, its difference, its finding and what that means."""
    rows = (
        (
            f"{sanity.subject}, {share(sanity.density)}: {check.check}",
            NOTHING if comparison is None else points(100 * comparison.mean),
            NOTHING if comparison is None else between(100 * comparison.low, 100 * comparison.high, "+"),
            NOTHING if comparison is None else probability(comparison),
            check.finding,
            check.meaning,
        )
        for sanity in study.sanity
        for check in sanity.checks
        for comparison in [check.comparison]
    )
    head = ("check", "ticket − control, points", "95 % interval", "p", "finding", "that is")
    return Grid(head, tuple(rows))


def difference_rows(study: GatheredArms) -> list[Row]:
    """The rows of `differences_chart`, in points; checks that do not apply have none."""
    return [
        {
            "expected": f"{sanity.subject}, {share(sanity.density)}: {check.check}",
            "finding": check.finding,
            "unit": "points",
        }
        | {name: finite(100 * getattr(check.comparison, name)) for name in ("mean", "low", "high")}
        for sanity in study.sanity
        for check in sanity.checks
        if check.comparison is not None
    ]


def _checks(study: GatheredArms) -> list[str]:
    return [check.check for check in study.sanity[0].checks] if study.sanity else []


def _cell(check: Checked) -> str:
    mark = MARKS[check.finding]
    return mark if check.comparison is None else f"{mark} {points(100 * check.comparison.mean)}"
