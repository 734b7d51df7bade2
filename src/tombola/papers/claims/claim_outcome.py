"""From runs to a verdict on a claim: what each expectation came to, by the bound that decides it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tombola.evidence import ONE_LOOK, Looks
from tombola.papers.claims.differences import Difference, difference_of
from tombola.papers.claims.measurement import MeasuredFigure
from tombola.papers.claims.units import POINTS, Unit
from tombola.studies import Result

Relation = Literal[">", "≥"]
Finding = Literal["holds", "contradicted", "undecided", "tie"]
Outcome = Literal["agrees", "disagrees", "too few seeds"]

ALPHA = 0.05
"""How often a verdict may be wrong, either way."""


@dataclass(frozen=True)
class Expectation:
    """The expectation that one arm is better than another (>), or not worse by more than a margin (≥).

    Args:
        left: name of the arm that should be better.
        relation: ">" or "≥".
        right: name of the arm it is compared with.
        margin: the largest difference that counts as none; None for half of the paper's effect where the paper has one
            and the arm should be better, else for the margin of the arms' unit.
        paper: what the paper has for left − right, as shown: in points, epochs, …; None where it gives no number.
        place: where in the paper, or in its code's results.
        reason: why the margin is what it is.
        counts: whether the verdict depends on it; what we ask beside the paper does not count.

    Examples:
        >>> str(Expectation("imp", ">", "random"))
        'imp > random'
    """

    left: str
    relation: Relation
    right: str
    margin: float | None = None
    paper: float | None = None
    place: str = ""
    reason: str = ""
    counts: bool = True

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"

    def margin_in(self, unit: Unit) -> float:
        """The margin, in the figures' own unit."""
        if self.margin is not None:
            return self.margin
        if self.relation == ">" and self.paper:
            return abs(self.paper) / unit.scale / 2
        return unit.margin

    def margin_reason(self, unit: Unit) -> str:
        """Why the margin is what it is."""
        if self.reason:
            return self.reason
        if self.margin is None and self.relation == ">" and self.paper:
            return "half of the paper's effect"
        return "a difference that small counts as none"


@dataclass(frozen=True)
class Judged:
    """What one expectation came to.

    Args:
        expected: the expectation.
        unit: of its arms' figures.
        difference: of its arms.
        margin: what counts as none, in the figures' own unit.
        finding: "holds"; "contradicted"; "undecided"; or "tie" where the arms are the same in every seed by
            construction, so that nothing can follow.
        bound: the end of the interval that decides, or that comes nearest to it.
        chance: with what chance the bound is on the right side of the truth.
        limit: what the bound is held against.
        detectable: the smallest effect that these seeds are sure to show, in the figures' own unit.
    """

    expected: Expectation
    unit: Unit
    difference: Difference
    margin: float
    finding: Finding
    bound: float
    chance: float
    limit: float
    detectable: float

    @property
    def paper(self) -> float | None:
        """The paper's effect, in the figures' own unit."""
        return None if self.expected.paper is None else self.expected.paper / self.unit.scale

    @property
    def needed(self) -> float:
        """The effect that the seeds must be able to show: the paper's; or the margin, where nothing shall be lost."""
        if self.expected.relation == ">" and self.paper:
            return abs(self.paper)
        return self.margin

    @property
    def can_show(self) -> bool:
        """Whether these seeds could show that effect."""
        return self.detectable <= self.needed

    @property
    def in_words(self) -> str:
        """The difference and its 95 % interval, with their unit; one seed has no interval."""
        ends = f"{self.unit.signed(self.difference.low)} … {self.unit.signed(self.difference.high)}"
        told = ends if math.isfinite(self.detectable) else "one seed"
        return f"{self.unit.signed(self.difference.mean)} ({told}) {self.unit.name}"

    @property
    def excludes_paper(self) -> bool:
        """Whether the 95 % interval leaves the paper's effect out."""
        return self.paper is not None and not self.difference.low <= self.paper <= self.difference.high


@dataclass(frozen=True)
class ClaimReport:
    """What came out of a claim's runs.

    Args:
        rows: what each expectation came to.
        arms: each arm's runs, or its figures, by seed.
        units: the unit of each arm.
        looks: how often the runs are looked at.
    """

    rows: tuple[Judged, ...]
    arms: Mapping[str, tuple[Result, ...] | tuple[MeasuredFigure, ...]]
    units: Mapping[str, Unit]
    looks: Looks = ONE_LOOK

    @property
    def seeds(self) -> int:
        return len(next(iter(self.arms.values())))

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(row.finding for row in self.rows)

    @property
    def counted(self) -> tuple[Judged, ...]:
        """The rows on which the verdict depends."""
        return tuple(row for row in self.rows if row.expected.counts)

    @property
    def outcome(self) -> Outcome:
        """Whether the runs agree with the paper: all rows hold; disagree: one is contradicted; or do not tell."""
        findings = [row.finding for row in self.counted]
        if "contradicted" in findings:
            return "disagrees"
        return "agrees" if set(findings) == {"holds"} else "too few seeds"

    @property
    def weakest(self) -> Judged | None:
        """Of the undecided rows the one whose seeds fall shortest of what they would have to show."""
        open_ones = [row for row in self.counted if row.finding == "undecided"]
        return max(open_ones, key=lambda row: row.detectable / row.needed if row.needed else math.inf, default=None)

    @property
    def answer(self) -> str:
        """The outcome in words; without one, what could have been shown and what would have to be."""
        row = self.weakest
        if self.outcome != "too few seeds":
            return self.outcome
        if row is None:
            return "cannot be told: arms are the same by construction"
        if not math.isfinite(row.detectable):
            return "too few seeds (one shows nothing)"
        has = "the paper has" if row.expected.relation == ">" and row.paper else "it needs"
        return f"too few seeds (could show {row.unit.size(row.detectable)}, {has} {row.unit.size(row.needed)})"

    @property
    def sentence(self) -> str:
        """The outcome, and how many expectations came to what."""
        words = {"holds": "hold", "contradicted": "are contradicted", "undecided": "are undecided", "tie": "are ties"}
        findings = [row.finding for row in self.counted]
        counts = [f"{findings.count(finding)} {word}" for finding, word in words.items() if finding in findings]
        over = f"over {self.seeds} seed{'s' if self.seeds > 1 else ''}"
        return f"{self.answer}: of {len(findings)} expectations, {', '.join(counts)}, {over}"


def judge_claim(
    expected: Sequence[Expectation],
    arms: Mapping[str, Sequence[Result] | Sequence[MeasuredFigure]],
    units: Mapping[str, Unit] | None = None,
    looks: Looks = ONE_LOOK,
) -> ClaimReport:
    """Test each expectation on the paired differences of its arms.

    A > B holds if the 95 % interval of A − B lies above 0, and is contradicted if A is shown not to be better by as
    much as the margin. A ≥ B holds if A is shown not to be worse by as much as the margin (one-sided, 5 %), and is
    contradicted if A is shown to be worse by as much.

    The claim agrees only if all expectations hold: an intersection, whose parts need no correction. It disagrees if any
    is contradicted: a union, so that contradictions are corrected for the number of expectations (Holm).

    Args:
        expected: what should come out.
        arms: each arm's runs or figures, by seed; the first of one arm is paired with the first of another.
        units: the units of arms that are not counted in points.
        looks: how often the runs are looked at.
    """
    arm_units = dict.fromkeys(arms, POINTS) | dict(units or {})
    figures = {name: [result.metric for result in results] for name, results in arms.items()}
    alone = [_alone(own, figures[own.left], figures[own.right], arm_units[own.left], looks) for own in expected]
    open_ones = {place for place, row in enumerate(alone) if row.finding == "undecided" and row.expected.counts}
    rows = list(alone)
    while open_ones:
        against = {place: _contradicted(alone[place], ALPHA / len(open_ones)) for place in open_ones}
        shown = {place: row for place, row in against.items() if row is not None}
        if not shown:
            break
        for place, row in shown.items():
            rows[place] = row
        open_ones -= shown.keys()
    beside = [_contradicted(row, ALPHA) or row if not row.expected.counts else row for row in rows]
    return ClaimReport(tuple(beside), {name: tuple(results) for name, results in arms.items()}, arm_units, looks)


def _alone(own: Expectation, left: Sequence[float], right: Sequence[float], unit: Unit, looks: Looks) -> Judged:
    """An expectation by itself: it holds, is a tie, or is still open."""
    difference = difference_of(left, right, unit, looks)
    margin = own.margin_in(unit)
    level, limit = (ALPHA / 2, 0.0) if own.relation == ">" else (ALPHA, -margin)
    bound = difference.least(level)
    same = len(set(left)) == len(set(right)) == 1 and set(left) == set(right)
    finding: Finding = "tie" if same and len(left) > 1 else "holds" if bound > limit else "undecided"
    return Judged(own, unit, difference, margin, finding, bound, 1 - level, limit, difference.half_width(level))


def _contradicted(row: Judged, level: float) -> Judged | None:
    """The row as a contradiction, if its other bound shows one at a level."""
    if row.finding != "undecided":
        return None
    limit = row.margin if row.expected.relation == ">" else -row.margin
    bound = row.difference.most(level)
    return replace(row, finding="contradicted", bound=bound, chance=1 - level, limit=limit) if bound < limit else None
