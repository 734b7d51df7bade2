"""Paired comparison of two arms over seeds: the difference, its intervals, and the outcome that they allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tombola.errors import TombolaError

Outcome = Literal["better", "worse", "equivalent", "undecided"]

MARGIN = 0.005


@dataclass(frozen=True)
class Comparison:
    """The ticket minus one other arm, paired over seeds.

    All differences are in the metric's unit, which for accuracy is a share in [0, 1] and not a percentage.

    Args:
        against: the other arm: "dense" or a control.
        differences: ticket minus other arm, one number a seed.
        mean: the mean difference.
        low: lower end of the 95 % interval of the mean difference.
        high: its upper end.
        low90: lower end of the 90 % interval.
        high90: its upper end.
        p: two-sided; `holm` adjusts it for the comparisons made together.
        detectable: the smallest mean difference that these seeds are sure to show as *better* or *worse*.
        outcome: *better*, *worse*, *equivalent* or *undecided*.
        margin: a smaller difference counts as none.
    """

    against: str
    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    low90: float
    high90: float
    p: float
    detectable: float
    outcome: Outcome
    margin: float = MARGIN


def paired_comparison(
    ticket: Sequence[float], other: Sequence[float], against: str, margin: float = MARGIN
) -> Comparison:
    """Compare two arms seed by seed with a paired t interval.

    The ticket is *better* (*worse*) if the 95 % interval of the difference lies above (below) 0; else *equivalent* if
    the 90 % interval lies inside ±margin (two one-sided tests: Schuirmann, 1987); else *undecided*.

    Args:
        ticket: the ticket's metric, one number a seed.
        other: the other arm's metric for the same seeds, in the same order.
        against: what the other arm is called.
        margin: a smaller difference counts as none, in the metric's unit.

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
    mean = math.fsum(differences) / count
    if count == 1:
        unbounded = (-math.inf, math.inf)
        return Comparison(against, differences, mean, *unbounded, *unbounded, 1.0, math.inf, "undecided", margin)
    error = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (count - 1) / count)
    half95, half90 = (error * _t_quantile(q, count - 1) for q in (0.975, 0.95))
    draft = Comparison(
        against,
        differences,
        mean,
        mean - half95,
        mean + half95,
        mean - half90,
        mean + half90,
        _two_sided_p(mean, error, count - 1),
        half95,
        "undecided",
        margin,
    )
    return replace(draft, outcome=outcome_of(draft))


def outcome_of(comparison: Comparison) -> Outcome:
    """The outcome that the intervals and the adjusted p-value of a comparison allow."""
    # p and interval are computed apart: both must agree, so that rounding at 5 % shows no difference.
    if comparison.p < 0.05 and not comparison.low <= 0 <= comparison.high:
        return "better" if comparison.mean > 0 else "worse"
    if -comparison.margin < comparison.low90 and comparison.high90 < comparison.margin:
        return "equivalent"
    return "undecided"


def holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Correct comparisons that are made together for their number (Holm, Scandinavian Journal of Statistics, 1979).

    Args:
        comparisons: comparisons with uncorrected p-values.

    Returns:
        The same comparisons in the same order, with adjusted `p`, `detectable` and `outcome`; the intervals stay those
        of each comparison alone.

    Examples:
        >>> alone = paired_comparison([0.912, 0.921, 0.905, 0.910], [0.90, 0.90, 0.90, 0.905], "shuffle")
        >>> [comparison.outcome for comparison in holm([alone, alone])]
        ['undecided', 'undecided']
    """
    count = len(comparisons)
    order = sorted(range(count), key=lambda i: comparisons[i].p)
    adjusted, p = list(comparisons), 0.0
    for rank, index in enumerate(order):
        comparison = comparisons[index]
        p = max(p, min(1.0, comparison.p * (count - rank)))  # Holm's p never falls where p rises
        # Bonferroni's factor, the largest that Holm applies: this difference shows whatever the others' p-values are.
        detectable = comparison.detectable * _widening(count, len(comparison.differences))
        corrected = replace(comparison, p=p, detectable=detectable)
        adjusted[index] = replace(corrected, outcome=outcome_of(corrected))
    return tuple(adjusted)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of one arm's results and its 95 % t interval.

    Args:
        values: one number a seed, at least one.

    Returns:
        Mean, lower end, upper end; with one seed all three are the mean.

    Examples:
        >>> [round(bound, 3) for bound in interval([0.90, 0.92, 0.91])]
        [0.91, 0.885, 0.935]
    """
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return mean, mean, mean
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1) / count)
    half = error * _t_quantile(0.975, count - 1)
    return mean, mean - half, mean + half


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
    from scipy.stats import binomtest

    if not 0 <= hits <= runs or not runs:
        raise TombolaError(
            f"{hits} hits in {runs} runs have no share; give at least one run, and no more hits than runs"
        )
    bounds = binomtest(hits, runs).proportion_ci(method="wilson")
    return hits / runs, float(bounds.low), float(bounds.high)


def _widening(comparisons: int, count: int) -> float:
    """The factor by which a difference must be larger to show among several comparisons than alone."""
    return _t_quantile(1 - 0.025 / comparisons, count - 1) / _t_quantile(0.975, count - 1) if count > 1 else 1.0


def _t_quantile(q: float, degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(q, degrees))


def _two_sided_p(mean: float, error: float, degrees: int) -> float:
    from scipy.stats import t

    if error < 1e-15:  # all differences agree up to rounding
        return 1.0 if abs(mean) < 1e-12 else 0.0
    return float(2 * t.sf(abs(mean) / error, degrees))
