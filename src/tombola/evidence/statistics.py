"""Paired comparison of two arms over seeds: the difference, its intervals, and the outcome that they allow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from tombola.errors import TombolaError
from tombola.evidence.looks import Looks, OneLook
from tombola.evidence.measure import ACCURACY, MARGIN, Measure

Outcome = Literal["better", "worse", "equivalent", "not worse", "not better", "undecided"]

ALPHA = 0.05
"""How often a word may be wrong."""
ONE_LOOK = OneLook()


@dataclass(frozen=True)
class Comparison:
    """The ticket minus one other arm, paired over seeds.

    All differences are in the measure's unit, which for accuracy is a share in [0, 1] and not a percentage. Each word
    is read off one of two intervals of one `level`: better and worse off the first, the others off the second.

    Args:
        against: the other arm: "dense", a control, or another method.
        differences: ticket minus other arm, one number a seed.
        mean: the mean difference.
        low: lower end of the interval that holds with 1 − level, the 95 % interval unless it is corrected.
        high: its upper end.
        low90: lower end of the interval that holds with 1 − 2 · level, the 90 % interval unless it is corrected.
        high90: its upper end.
        p: two-sided, of the difference 0; `holm` adjusts it. None after several looks, which have no simple one.
        detectable: the smallest mean difference that these seeds are sure to show as *better* or *worse*.
        outcome: *better* or *worse*; else *equivalent* (no further from 0 than the margin), *not worse* or *not better*
            (by as much as the margin); else *undecided*.
        margin: a smaller difference counts as none.
        level: how often the words may be wrong; smaller where `holm` corrects for others.
        measure: what is compared.
        step: the smallest difference that there can be but 0, as one test sample in all of them; 0 if there is none.
    """

    against: str
    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    low90: float
    high90: float
    p: float | None
    detectable: float
    outcome: Outcome
    margin: float = MARGIN
    level: float = ALPHA
    measure: Measure = ACCURACY
    step: float = 0.0

    @property
    def decisive(self) -> tuple[float, float, float]:
        """The interval off which the outcome is read: its lower and upper end, and with what chance it holds."""
        if self.outcome in ("equivalent", "not worse", "not better"):
            return self.low90, self.high90, 1 - 2 * self.level
        return self.low, self.high, 1 - self.level


def paired_comparison(
    ticket: Sequence[float],
    other: Sequence[float],
    against: str,
    margin: float = MARGIN,
    *,
    measure: Measure = ACCURACY,
    looks: Looks = ONE_LOOK,
    step: float = 0.0,
) -> Comparison:
    """Compare two arms seed by seed with paired t intervals.

    The ticket is *better* (*worse*) if the 95 % interval of the difference lies on the better (worse) side of 0: a
    superiority test. Else the 90 % interval decides: *equivalent* if it lies inside ±margin (two one-sided tests:
    Schuirmann, 1987), *not worse* if only its worse end does (non-inferiority), *not better* if only its better end
    does. Else the outcome is *undecided*.

    Args:
        ticket: the ticket's measure, one number a seed.
        other: the other arm's measure for the same seeds, in the same order.
        against: what the other arm is called.
        margin: a smaller difference counts as none, in the measure's unit.
        measure: what is compared, which says what is better.
        looks: how often the comparison is looked at; once, if not given.
        step: the smallest difference that there can be but 0. Seeds vary by half of it at least: so does what takes
            two neighbouring values, and few seeds that all agree do not show that there is but one.

    Returns:
        The comparison; with a single seed it is *undecided*.

    Raises:
        TombolaError: if the arms have different numbers of results, or none.

    Examples:
        >>> paired_comparison([0.90, 0.92, 0.91], [0.80, 0.83, 0.81], "shuffle").outcome
        'better'
    """
    if len(ticket) != len(other):
        raise TombolaError(f"the arms have {len(ticket)} and {len(other)} results; give both arms the same seeds")
    differences = tuple(a - b for a, b in zip(ticket, other, strict=True))
    count = len(differences)
    if count == 0:
        raise TombolaError(f"there is no seed to compare with '{against}'; give at least two seeds")
    mean, error = mean_and_error(differences, step)
    p = 1.0 if count == 1 else _two_sided_p(mean, error, count - 1) if isinstance(looks, OneLook) else None
    nan = math.nan  # the level gives the ends
    unread = Comparison(
        against, differences, mean, nan, nan, nan, nan, p, math.inf, "undecided", margin, measure=measure, step=step
    )
    return at_level(unread, ALPHA, looks)


def at_level(comparison: Comparison, level: float, looks: Looks = ONE_LOOK) -> Comparison:
    """The comparison with the intervals of a level, and the outcome that they allow.

    Args:
        comparison: its differences count.
        level: how often its words may be wrong.
        looks: how often the comparison is looked at.
    """
    count = len(comparison.differences)
    mean, error = mean_and_error(comparison.differences, comparison.step)
    wide, narrow = (half_width(error, alpha, count, looks) for alpha in (level / 2, level))
    ends = (mean - wide, mean + wide, mean - narrow, mean + narrow)
    if comparison.measure.share and count > 1:
        ends = tuple(min(max(end, -1.0), 1.0) for end in ends)  # no difference of two shares is larger
    drawn = replace(comparison, low=ends[0], high=ends[1], low90=ends[2], high90=ends[3], detectable=wide, level=level)
    return replace(drawn, outcome=_outcome(drawn))


def half_width(error: float, alpha: float, count: int, looks: Looks = ONE_LOOK) -> float:
    """Half of the width of an interval; infinite before the first look.

    Args:
        error: the standard error of the mean.
        alpha: the chance that the mean lies beyond one end.
        count: the seeds.
        looks: how often the interval is looked at.
    """
    critical = looks.critical(alpha, count)
    return critical * error if math.isfinite(critical) else math.inf


def _outcome(comparison: Comparison) -> Outcome:
    """The outcome that the intervals of a comparison allow."""
    sign, margin = comparison.measure.sign, comparison.margin
    if not comparison.low <= 0 <= comparison.high and abs(comparison.mean) > 1e-12:
        return "better" if sign * comparison.mean > 0 else "worse"
    at_worst, at_best = sorted((sign * comparison.low90, sign * comparison.high90))
    if -margin < at_worst:
        return "equivalent" if at_best < margin else "not worse"
    return "not better" if at_best < margin else "undecided"


def holm(comparisons: Sequence[Comparison], looks: Looks = ONE_LOOK) -> tuple[Comparison, ...]:
    """Correct comparisons of which any may be claimed (Holm, Scandinavian Journal of Statistics, 1979).

    The chance that any *better* or *worse* is wrong stays at 5 %, and so does that of the other words, which are
    corrected by Bonferroni. A conjunction, which claims all of several things or nothing, needs no correction.

    Args:
        comparisons: comparisons by themselves.
        looks: how often they are looked at.

    Returns:
        The same comparisons in the same order. Intervals and outcomes are those of the level at which each was tested.

    Examples:
        >>> alone = paired_comparison([0.912, 0.921, 0.905, 0.915], [0.90, 0.90, 0.90, 0.905], "shuffle")
        >>> alone.outcome, [comparison.outcome for comparison in holm([alone, alone])]
        ('better', ['not worse', 'not worse'])
    """
    count = len(comparisons)
    corrected = [at_level(comparison, ALPHA / count, looks) for comparison in comparisons]
    open_ones = set(range(count))
    while open_ones:
        level = ALPHA / len(open_ones)
        tested = {place: at_level(comparisons[place], level, looks) for place in open_ones}
        shown = {place for place, own in tested.items() if own.outcome in ("better", "worse")}
        if not shown:
            break
        for place in shown:
            corrected[place] = replace(tested[place], detectable=corrected[place].detectable)
        open_ones -= shown
    adjusted = _adjusted([comparison.p for comparison in comparisons])
    return tuple(replace(own, p=p) for own, p in zip(corrected, adjusted, strict=True))


def _adjusted(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's p values, which never fall where p rises."""
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted, largest = list(ps), 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(ps) - rank)))
        adjusted[place] = largest
    return adjusted


def interval(
    values: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float, float]:
    """The mean of one arm's results and its 95 % t interval.

    Args:
        values: one number a seed, at least one.
        bounds: between which values a mean can lie; the interval ends there.

    Returns:
        Mean, lower end, upper end; with one seed all three are the mean.

    Examples:
        >>> [round(bound, 3) for bound in interval([0.90, 0.92, 0.91])]
        [0.91, 0.885, 0.935]
        >>> interval([0.98, 1.0], bounds=(0.0, 1.0))[2]
        1.0
    """
    mean, error = mean_and_error(values)
    if len(values) == 1:
        return mean, mean, mean
    half = error * ONE_LOOK.critical(0.025, len(values))
    return mean, max(mean - half, min(bounds[0], mean)), min(mean + half, max(bounds[1], mean))


def proportion(hits: int, runs: int) -> tuple[float, float, float]:
    """The share of runs that hit, and its 95 % interval (Wilson, 1927).

    Args:
        hits: how many runs hit.
        runs: how many runs there were, at least one.

    Returns:
        Share, lower end, upper end.

    Raises:
        TombolaError: if there are no runs, or more hits than runs.

    Examples:
        >>> [round(share, 3) for share in proportion(3, 120)]
        [0.025, 0.009, 0.071]
    """
    return proportion_at(hits, runs, ALPHA / 2)


def proportion_at(hits: int, runs: int, level: float) -> tuple[float, float, float]:
    """The share of runs that hit, and its Wilson interval whose ends each err with a chance of `level`."""
    from scipy.stats import binomtest

    if not 0 <= hits <= runs or not runs:
        raise TombolaError(
            f"{hits} hits in {runs} runs have no share; give at least one run, and no more hits than runs"
        )
    bounds = binomtest(hits, runs).proportion_ci(1 - 2 * level, method="wilson")
    return hits / runs, float(bounds.low), float(bounds.high)


def mean_and_error(values: Sequence[float], step: float = 0.0) -> tuple[float, float]:
    """The mean of numbers and its standard error; infinite for a single one.

    Args:
        values: the numbers.
        step: of their grid; the standard deviation counts as half of it at least.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return mean, math.inf
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    spread = max(spread, step / 2)
    return mean, 0.0 if spread < 1e-15 else spread / math.sqrt(count)


def grid_step(values: Iterable[float]) -> float:
    """The step of the grid on which results lie, as one test sample in all of them; 0 for a single value.

    Examples:
        >>> round(grid_step([0.5, 0.52, 0.57]), 3)
        0.02
    """
    ordered = sorted(values)
    return min((b - a for a, b in pairwise(ordered) if b - a > 1e-9), default=0.0)


def _two_sided_p(mean: float, error: float, degrees: int) -> float:
    from scipy.stats import t

    if not error:
        return 1.0 if abs(mean) < 1e-12 else 0.0
    return float(2 * t.sf(abs(mean) / error, degrees))
