"""Sanity checks in a report: which method passes which, as tables and a picture."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tombola.evidence import Checked
from tombola.evidence.sanity_outcomes import Finding
from tombola.report.arms import GatheredArms
from tombola.report.chart_rows import Row, finite
from tombola.report.page_tables import Grid
from tombola.report.prose import NOTHING, between, points, probability, share

MARKS: Mapping[Finding, str] = {"passes": "✓", "fails": "✗", "undecided": "?", "does not apply": NOTHING}
STYLES: Mapping[Finding, str] = {"passes": "green", "fails": "red", "undecided": "yellow", "does not apply": ""}
COLOURS: Mapping[str, str] = {"passes": "good", "fails": "bad", "undecided": "unsure"}
"""What of a theme each finding is drawn in."""


def sanity_table(study: GatheredArms) -> Table:
    """For the terminal: a row a method and density, a column a check."""
    drawn = Table(
        box=SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title="Sanity checks: ticket minus control, points",
        caption="✓ passes   ✗ fails   ? undecided   – does not apply",
    )
    drawn.add_column("method", overflow="fold", min_width=10)
    drawn.add_column("density", justify="right", no_wrap=True)
    for name in _checks(study):
        drawn.add_column(name.replace("-", "-\n"), justify="right", no_wrap=True)
    for own in study.sanity:
        cells = (Text(_cell(check), style=STYLES[check.finding]) for check in own.checks)
        drawn.add_row(own.subject, share(own.density), *cells)
    return drawn


def overview(study: GatheredArms) -> Grid:
    """A row a method and density, a column a check."""
    rows = (
        (own.subject, share(own.density), str(len(own.seeds)), *(_cell(check) for check in own.checks))
        for own in study.sanity
    )
    return Grid(("method", "density", "seeds", *_checks(study)), tuple(rows))


def differences(study: GatheredArms) -> Grid:
    """A row a check of each method and density: what came out, and what that means."""
    rows = (
        (
            f"{own.subject}, {share(own.density)}: {check.check}",
            NOTHING if found is None else points(100 * found.mean),
            NOTHING if found is None else between(100 * found.low, 100 * found.high, "+"),
            NOTHING if found is None else probability(found),
            check.finding,
            check.meaning,
        )
        for own in study.sanity
        for check in own.checks
        for found in [check.comparison]
    )
    head = ("check", "ticket − control, points", "95 % interval", "p", "finding", "that is")
    return Grid(head, tuple(rows))


def difference_rows(study: GatheredArms) -> list[Row]:
    """The differences as a chart wants them, in points."""
    return [
        {"expected": f"{own.subject}, {share(own.density)}: {check.check}", "finding": check.finding, "unit": "points"}
        | {name: finite(100 * getattr(check.comparison, name)) for name in ("mean", "low", "high")}
        for own in study.sanity
        for check in own.checks
        if check.comparison is not None
    ]


def _checks(study: GatheredArms) -> list[str]:
    return [check.check for check in study.sanity[0].checks] if study.sanity else []


def _cell(own: Checked) -> str:
    mark = MARKS[own.finding]
    return mark if own.comparison is None else f"{mark} {points(100 * own.comparison.mean)}"
