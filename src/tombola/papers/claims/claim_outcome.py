"""From runs to an outcome: reproduced, not reproduced or inconclusive, with the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tombola.evidence import Comparison, holm, paired_comparison
from tombola.papers.claims.measurement import MeasuredFigure
from tombola.papers.claims.units import POINTS, Unit
from tombola.studies import Result

Relation = Literal[">", "≥"]
Finding = Literal["holds", "contradicted", "undecided"]
Outcome = Literal["reproduced", "not reproduced", "inconclusive"]


@dataclass(frozen=True)
class Expectation:
    """That the arm `left` is better than `right` (>), or no worse by more than the margin (≥).

    margin: if it is not that of the arms' unit.
    """

    left: str
    relation: Relation
    right: str
    margin: float | None = None

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"


@dataclass(frozen=True)
class ClaimReport:
    """What came out: for each expectation its paired comparison and finding; each arm's runs, or its figures."""

    expected: tuple[Expectation, ...]
    comparisons: tuple[Comparison, ...]
    findings: tuple[Finding, ...]
    arms: Mapping[str, tuple[Result, ...] | tuple[MeasuredFigure, ...]]
    units: Mapping[str, Unit]

    @property
    def outcome(self) -> Outcome:
        """Reproduced if every expectation holds, not reproduced if one is contradicted, else inconclusive."""
        if "contradicted" in self.findings:
            return "not reproduced"
        return "inconclusive" if "undecided" in self.findings else "reproduced"

    @property
    def sentence(self) -> str:
        """The outcome in plain words."""
        words = {"holds": "hold", "contradicted": "are contradicted", "undecided": "are undecided"}
        counts = [f"{self.findings.count(own)} {word}" for own, word in words.items() if own in self.findings]
        seeds = len(next(iter(self.arms.values())))
        over = f"over {seeds} seed{'s' if seeds > 1 else ''}"
        return f"{self.outcome}: of {len(self.findings)} expectations, {', '.join(counts)}, {over}"


def judge_claim(
    expected: Sequence[Expectation],
    arms: Mapping[str, Sequence[Result] | Sequence[MeasuredFigure]],
    units: Mapping[str, Unit] | None = None,
) -> ClaimReport:
    """Hold each expectation against the paired differences of its arms, with Holm's correction for their number.

    A > B holds if A is better and is contradicted if it is worse or equivalent. A ≥ B holds if the 90 % interval of
    A − B lies above −margin, and is contradicted if it lies below −margin or A is worse. units: of arms that are not
    counted in points.
    """
    known = dict.fromkeys(arms, POINTS) | dict(units or {})
    metrics = {name: [result.metric for result in results] for name, results in arms.items()}
    margins = [known[own.left].margin if own.margin is None else own.margin for own in expected]
    comparisons = holm(
        [
            paired_comparison(metrics[own.left], metrics[own.right], own.right, margin)
            for own, margin in zip(expected, margins, strict=True)
        ]
    )
    findings = tuple(_finding(own.relation, result) for own, result in zip(expected, comparisons, strict=True))
    return ClaimReport(
        tuple(expected), comparisons, findings, {name: tuple(results) for name, results in arms.items()}, known
    )


def _finding(relation: Relation, comparison: Comparison) -> Finding:
    if relation == ">":
        if comparison.outcome == "better":
            return "holds"
        return "undecided" if comparison.outcome == "undecided" else "contradicted"
    if comparison.low90 > -comparison.margin:
        return "holds"
    return "contradicted" if comparison.outcome == "worse" or comparison.high90 < -comparison.margin else "undecided"
