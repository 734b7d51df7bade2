"""Robustness in a report: each ticket beside dense and controls, as tables and rows of charts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from tombola.evidence import Comparison, fixed
from tombola.report.arms import ArmResults, GatheredArms
from tombola.report.chart_rows import Row
from tombola.report.page_tables import Grid
from tombola.report.prose import NOTHING, between, outcome_words, percent, points, probability, share
from tombola.robust import compare_robustness
from tombola.terminal_table import Column, TerminalTable

FINDINGS = {"better": "green", "worse": "red", "equivalent": "", "undecided": "yellow"}
AXES: Mapping[str, tuple[str, str]] = {
    "FGSM": (r"FGSM (.+)", "ε of FGSM, of 255"),
    "PGD": (r"PGD (.+)", "ε of PGD, of 255"),
    "corruptions": (r"severity (\d)", "severity of corruption"),
}
"""For each kind of chart, the pattern of its measures' names and the title of its axis."""


@dataclass(frozen=True)
class RobustnessRow:
    """The robustness of one ticket beside dense and its controls.

    Args:
        arm: the ticket's arm.
        means: by role (ticket, dense, a control's name) and measure, the mean over seeds.
        against: by role of the other arm and measure, how much more robust the ticket is.
    """

    arm: ArmResults
    means: Mapping[str, Mapping[str, float]]
    against: Mapping[str, Mapping[str, Comparison]]

    @property
    def against_dense(self) -> Mapping[str, Comparison]:
        """How much more robust than dense the ticket is, by measure."""
        return self.against["dense"]

    @property
    def title(self) -> str:
        """The method with its density."""
        return f"{self.arm.method}, density {share(self.arm.density)}"

    @property
    def summary(self) -> str:
        """What these seeds show, in one line."""
        measures: dict[str, list[str]] = {}
        for name, comparison in self.against_dense.items():
            measures.setdefault(comparison.outcome, []).append(name)
        parts = [f"{outcome}: {', '.join(measures[outcome])}" for outcome in ("worse", "better") if outcome in measures]
        parts += [
            f"{len(measures[outcome])} {outcome}" for outcome in ("equivalent", "undecided") if outcome in measures
        ]
        return f"{self.title}, against dense: {'; '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """The row as JSON's types."""
        against = {
            role: {
                name: {"more_robust_by": c.mean, "low": c.low, "high": c.high, "p": c.p, "outcome": c.outcome}
                for name, c in comparisons.items()
            }
            for role, comparisons in self.against.items()
        }
        ticket = {"method": self.arm.method, "density": self.arm.density, "seeds": list(self.arm.seeds)}
        return ticket | {"means": self.means, "against": against}


def robustness_rows(study: GatheredArms) -> list[RobustnessRow]:
    """One row for each ticket whose robustness, and that of dense, was measured."""
    return [row for method in study.methods for arm in study.tickets(method) if (row := _row(study, arm))]


def robustness_table(study: GatheredArms) -> TerminalTable:
    """For the terminal: each measure of each ticket and of dense, and how much more robust the ticket is."""
    columns = (
        Column("measure", left=True, least=14),
        Column("it is", left=True),
        Column("more robust by"),
        Column("ticket, %", drop=1),
        Column("dense, %", drop=2),
        Column("95 % interval", drop=3),
    )
    table = TerminalTable(columns, title="Robustness: ticket beside dense")
    for row in robustness_rows(study):
        table.add(Text(row.title, style="bold"), *([""] * (len(columns) - 1)))
        for index, (name, comparison) in enumerate(row.against_dense.items()):
            outcome, colour = comparison.outcome, FINDINGS.get(comparison.outcome, "")
            table.add(
                f"  {name}",
                Text(outcome, style=colour),
                points(100 * comparison.mean),
                *(fixed(100 * row.means[role][name]) for role in ("ticket", "dense")),
                between(100 * comparison.low, 100 * comparison.high, "+"),
                end=index == len(row.against_dense) - 1,
            )
    return table


def grid(ticket: RobustnessRow) -> Grid:
    """For the page: each measure of the ticket, of dense and of each control, with the comparisons to them."""
    head = ["measure", "ticket"]
    for role in ticket.against:
        head += [role, "more robust by, points", "95 % interval", "p", "it is"]
    rows = (
        (
            name,
            percent(100 * ticket.means["ticket"][name]),
            *(cell for role in ticket.against for cell in _cells(ticket, role, name)),
        )
        for name in ticket.against_dense
    )
    return Grid(tuple(head), tuple(rows))


def _cells(ticket: RobustnessRow, role: str, name: str) -> tuple[str, ...]:
    comparison = ticket.against[role].get(name)
    if comparison is None:
        return (NOTHING,) * 5
    return (
        percent(100 * ticket.means[role][name]),
        points(100 * comparison.mean),
        between(100 * comparison.low, 100 * comparison.high, "+"),
        probability(comparison),
        outcome_words(comparison),
    )


def robustness_curve_rows(ticket: RobustnessRow, kind: str) -> list[Row]:
    """Accuracy in percent of the ticket, dense and controls, by strength of one kind of change.

    Args:
        ticket: the ticket with the arms beside it.
        kind: a key of AXES.

    Returns:
        Rows whose place is ε (of 255) or the severity; place 0 is the clean images.
    """
    seeds = len(ticket.arm.results)
    rows: list[Row] = []
    for role, means in ticket.means.items():
        places = {place: mean for name, mean in means.items() if (place := _place(name, AXES[kind][0])) is not None}
        if places:
            places[0.0] = means["clean"]
            rows += [{"series": role, "place": p, "value": 100 * places[p], "seeds": seeds} for p in sorted(places)]
    return rows


def _row(study: GatheredArms, arm: ArmResults) -> RobustnessRow | None:
    dense = study.dense(arm)
    controls = [other for other in study.arms if (other.method, other.density) == (arm.method, arm.density)]
    arms = {"ticket": arm, "dense": dense, **{control.control: control for control in controls if control.control}}
    measured = {role: by_seed for role, other in arms.items() if other is not None and (by_seed := _by_seed(other))}
    if not {"ticket", "dense"} <= measured.keys():
        return None
    others = [role for role in measured if role != "ticket"]
    against = {
        role: comparisons for role in others if (comparisons := _against(measured["ticket"], measured[role], role))
    }
    means = {role: _means(by_seed.values()) for role, by_seed in measured.items()}
    return RobustnessRow(arm, means, against) if "dense" in against else None


def _against(
    ticket: Mapping[int, Mapping[str, float]], other: Mapping[int, Mapping[str, float]], role: str
) -> dict[str, Comparison]:
    """The ticket compared with another arm over the seeds that both have."""
    shared = sorted(ticket.keys() & other.keys())
    return (
        compare_robustness([ticket[seed] for seed in shared], [other[seed] for seed in shared], role) if shared else {}
    )


def _by_seed(arm: ArmResults) -> dict[int, Mapping[str, float]]:
    return {result.seed: result.robustness for result in arm.results if result.robustness}


def _means(measured: Iterable[Mapping[str, float]]) -> dict[str, float]:
    seeds: Sequence[Mapping[str, float]] = list(measured)
    return {name: math.fsum(measures[name] for measures in seeds) / len(seeds) for name in seeds[0]}


def _place(name: str, pattern: str) -> float | None:
    """Where a measure stands on its axis; None if it is of another kind. ε is written as "8/255" or as a share of 1."""
    match = re.fullmatch(pattern, name)
    if match is None:
        return None
    number, _, denominator = match[1].partition("/")
    return float(number) if denominator or pattern.startswith("severity") else 255 * float(number)
