"""Robustness in a report: what each ticket came to beside dense and controls, as rows, table and panels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tombola.evidence import Comparison
from tombola.report.arms import ArmResults, GatheredArms
from tombola.report.chart_rows import Row
from tombola.report.page_tables import Grid
from tombola.report.prose import NOTHING, between, outcome_words, percent, points, probability, share
from tombola.robust import compare_robustness

FINDINGS = {"better": "green", "worse": "red", "equivalent": "", "undecided": "yellow"}
AXES: Mapping[str, tuple[str, str]] = {
    "FGSM": (r"FGSM (.+)", "ε of FGSM, of 255"),
    "PGD": (r"PGD (.+)", "ε of PGD, of 255"),
    "corruptions": (r"severity (\d)", "severity of corruption"),
}
"""What robustness is drawn against: the measures' names, and the axis."""


@dataclass(frozen=True)
class RobustnessRow:
    """A ticket's arm: the mean of each measure by role (ticket, dense, controls), and how the ticket compares."""

    arm: ArmResults
    means: Mapping[str, Mapping[str, float]]
    against: Mapping[str, Mapping[str, Comparison]]

    @property
    def against_dense(self) -> Mapping[str, Comparison]:
        return self.against["dense"]

    @property
    def title(self) -> str:
        return f"{self.arm.method}, density {share(self.arm.density)}"

    @property
    def summary(self) -> str:
        """What these seeds show, in a line."""
        found: dict[str, list[str]] = {}
        for name, own in self.against_dense.items():
            found.setdefault(own.outcome, []).append(name)
        parts = [f"{outcome}: {', '.join(found[outcome])}" for outcome in ("worse", "better") if outcome in found]
        open_ = len(found.get("undecided", ()))
        parts += [f"{len(found['equivalent'])} equivalent"] if "equivalent" in found else []
        parts += [f"{open_} undecided"] if open_ else []
        return f"{self.title}, against dense: {'; '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        against = {
            role: {
                name: {"more_robust_by": own.mean, "low": own.low, "high": own.high, "p": own.p, "outcome": own.outcome}
                for name, own in found.items()
            }
            for role, found in self.against.items()
        }
        own = {"method": self.arm.method, "density": self.arm.density, "seeds": list(self.arm.seeds)}
        return own | {"means": self.means, "against": against}


def robustness_rows(study: GatheredArms) -> list[RobustnessRow]:
    """The tickets' arms whose networks were tried beyond the test split."""
    return [own for method in study.methods for arm in study.tickets(method) if (own := _tried(study, arm))]


def robustness_table(study: GatheredArms) -> Table:
    """For the terminal: each measure of each ticket, dense, and by how much the ticket is more robust."""
    drawn = Table(box=SIMPLE_HEAD, header_style="bold", title="Robustness: ticket beside dense")
    for heading in ("ticket", "measure", "ticket, %", "dense, %", "more robust by", "95 % interval", "it is"):
        drawn.add_column(heading, justify="left" if heading in ("ticket", "measure", "it is") else "right")
    for own in robustness_rows(study):
        for index, (name, found) in enumerate(own.against_dense.items()):
            drawn.add_row(
                own.title if index == 0 else "",
                name,
                *(f"{100 * own.means[role][name]:.2f}" for role in ("ticket", "dense")),
                points(100 * found.mean),
                between(100 * found.low, 100 * found.high, "+"),
                f"[{FINDINGS[found.outcome]}]{found.outcome}[/]" if FINDINGS[found.outcome] else found.outcome,
                end_section=index == len(own.against_dense) - 1,
            )
    return drawn


def grid(own: RobustnessRow) -> Grid:
    """A row a measure: the ticket, and of dense and each control its value and how much more robust the ticket is."""
    head = ["measure", "ticket"]
    for role in own.against:
        head += [role, "more robust by, points", "95 % interval", "p", "it is"]
    rows = (
        (
            name,
            percent(100 * own.means["ticket"][name]),
            *(cell for role in own.against for cell in _cells(own, role, name)),
        )
        for name in own.against_dense
    )
    return Grid(tuple(head), tuple(rows))


def _cells(own: RobustnessRow, role: str, name: str) -> tuple[str, ...]:
    found = own.against[role].get(name)
    if found is None:
        return (NOTHING,) * 5
    return (
        percent(100 * own.means[role][name]),
        points(100 * found.mean),
        between(100 * found.low, 100 * found.high, "+"),
        probability(found),
        outcome_words(found),
    )


def robustness_curve_rows(own: RobustnessRow, kind: str) -> list[Row]:
    """Accuracy by ε or severity of one kind, of each role; 0 is the clean images."""
    seeds = len(own.arm.results)
    rows: list[Row] = []
    for role, means in own.means.items():
        places = {place: value for name, value in means.items() if (place := _place(name, AXES[kind][0])) is not None}
        if places:
            every = {0.0: means["clean"]} | places
            rows += [{"series": role, "place": p, "value": 100 * every[p], "seeds": seeds} for p in sorted(every)]
    return rows


def _tried(study: GatheredArms, arm: ArmResults) -> RobustnessRow | None:
    dense = study.dense(arm)
    others = [own for own in study.arms if own.method == arm.method and own.density == arm.density and own.control]
    roles = {"ticket": arm, "dense": dense, **{own.control: own for own in others}}
    known = {role: _by_seed(own) for role, own in roles.items() if own is not None and _by_seed(own)}
    if not {"ticket", "dense"} <= known.keys():
        return None
    against = {
        role: found for role in known if role != "ticket" and (found := _against(known["ticket"], known[role], role))
    }
    means = {role: _means(own.values()) for role, own in known.items()}
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
    every: Sequence[Mapping[str, float]] = list(measured)
    return {name: math.fsum(own[name] for own in every) / len(every) for name in every[0]}


def _place(name: str, pattern: str) -> float | None:
    found = re.fullmatch(pattern, name)
    if found is None:
        return None
    part, _, whole = found[1].partition("/")
    return float(part) if whole or pattern.startswith("severity") else 255 * float(part)
