"""From runs to an outcome: reproduced, not reproduced or inconclusive, with the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tombola.evidence import Comparison, Measure, holm, paired_comparison
from tombola.papers.claims.measurement import MeasuredFigure
from tombola.papers.claims.units import POINTS, Unit
from tombola.studies import Result

Relation = Literal[">", "≥"]
Finding = Literal["holds", "contradicted", "undecided"]
Outcome = Literal["reproduced", "not reproduced", "inconclusive"]


@dataclass(frozen=True)
class Expectation:
    """The expectation that one arm is better than another (>), or not worse by more than a margin (≥).

    Args:
        left: name of the arm that should be better.
        relation: ">" or "≥".
        right: name of the arm it is compared with.
        margin: the largest difference that counts as none; None for the margin of the arms' unit.

    Examples:
        >>> str(Expectation("imp", ">", "random"))
        'imp > random'
    """

    left: str
    relation: Relation
    right: str
    margin: float | None = None

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"


@dataclass(frozen=True)
class ClaimReport:
    """What came out of a claim's runs.

    Args:
        expected: the expectations.
        comparisons: the paired comparison of each expectation's arms, with Holm's correction.
        findings: whether each expectation "holds", is "contradicted" or is "undecided".
        arms: each arm's runs, or its figures, by seed.
        units: the unit of each arm.
    """

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
        counts = [
            f"{self.findings.count(finding)} {word}" for finding, word in words.items() if finding in self.findings
        ]
        seeds = len(next(iter(self.arms.values())))
        over = f"over {seeds} seed{'s' if seeds > 1 else ''}"
        return f"{self.outcome}: of {len(self.findings)} expectations, {', '.join(counts)}, {over}"


def judge_claim(
    expected: Sequence[Expectation],
    arms: Mapping[str, Sequence[Result] | Sequence[MeasuredFigure]],
    units: Mapping[str, Unit] | None = None,
) -> ClaimReport:
    """Test each expectation on the paired differences of its arms, with Holm's correction for their number.

    A > B holds if A is better, and is contradicted if A is worse, or not better by as much as the margin. A ≥ B holds
    if A is not worse by as much as the margin, and is contradicted if A is worse otherwise. Any of the findings may be
    quoted, so the chances that each is wrong add up to 5 %.

    Args:
        expected: what should come out.
        arms: each arm's runs or figures, by seed; the first of one arm is paired with the first of another.
        units: the units of arms that are not counted in points.
    """
    arm_units = dict.fromkeys(arms, POINTS) | dict(units or {})
    metrics = {name: [result.metric for result in results] for name, results in arms.items()}
    margins = [arm_units[e.left].margin if e.margin is None else e.margin for e in expected]
    comparisons = holm(
        [
            paired_comparison(metrics[e.left], metrics[e.right], e.right, margin, measure=_measure(arm_units[e.left]))
            for e, margin in zip(expected, margins, strict=True)
        ]
    )
    findings = tuple(_finding(e.relation, comparison) for e, comparison in zip(expected, comparisons, strict=True))
    return ClaimReport(
        tuple(expected), comparisons, findings, {name: tuple(results) for name, results in arms.items()}, arm_units
    )


def _measure(unit: Unit) -> Measure:
    """What an arm's figures are: shares if they are counted in points."""
    return Measure(unit.name, share=unit is POINTS)


def _finding(relation: Relation, comparison: Comparison) -> Finding:
    if relation == ">":
        if comparison.outcome == "better":
            return "holds"
        return "contradicted" if comparison.outcome in ("worse", "equivalent", "not better") else "undecided"
    if comparison.low90 > -comparison.margin:
        return "holds"
    return "contradicted" if comparison.outcome == "worse" or comparison.high90 < -comparison.margin else "undecided"
