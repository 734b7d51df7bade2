"""Paired comparison of two arms over seeds: difference, intervals, and what they allow us to say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tombola.errors import TombolaError
from tombola.fields import known_fields

Outcome = Literal["better", "worse", "equivalent", "undecided"]

MARGIN = 0.005


@dataclass(frozen=True)
class Comparison:
    """Ticket minus one other arm, paired over seeds, in the metric's unit (shares of 1 for accuracy).

    low, high: 95 % interval of the mean difference; low90, high90: 90 % interval; p: two-sided, adjusted for
    the other comparisons it was made with; detectable: the smallest mean difference that these seeds would have
    shown in any case, after that adjustment; margin: below it a difference is none.
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

    @staticmethod
    def of(content: dict[str, Any]) -> Comparison:
        """A comparison from what JSON made of it; what a newer version adds is left out."""
        typed = known_fields(Comparison, content)
        typed["differences"] = tuple(typed["differences"])
        return Comparison(**typed)


def paired_comparison(
    ticket: Sequence[float], other: Sequence[float], against: str, margin: float = MARGIN
) -> Comparison:
    """Compare two arms seed by seed with a paired t interval.

    *Better* (*worse*) if the 95 % interval lies above (below) 0; else *equivalent* if the 90 % interval lies
    inside ±margin (two one-sided tests); else *undecided*.

    Examples:
        >>> paired_comparison([0.90, 0.92, 0.91], [0.80, 0.83, 0.81], "shuffle").outcome
        'better'
    """
    if len(ticket) != len(other):
        raise TombolaError(
            f"the arms have {len(ticket)} and {len(other)} results; a paired comparison needs the same seeds"
        )
    differences = tuple(a - b for a, b in zip(ticket, other, strict=True))
    count = len(differences)
    if count == 0:
        raise TombolaError(f"there is no seed to compare with '{against}' over; give at least two")
    mean = math.fsum(differences) / count
    if count == 1:
        infinite = math.inf
        unknown = (-infinite, infinite, -infinite, infinite, 1.0, infinite)
        return Comparison(against, differences, mean, *unknown, "undecided", margin)
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
    """What intervals and adjusted p allow us to say."""
    if comparison.p < 0.05 and not comparison.low <= 0 <= comparison.high:
        return "better" if comparison.mean > 0 else "worse"
    if -comparison.margin < comparison.low90 and comparison.high90 < comparison.margin:
        return "equivalent"
    return "undecided"


def holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same comparisons with Holm's correction for their number, and outcomes that follow from it."""
    order = sorted(range(len(comparisons)), key=lambda i: comparisons[i].p)
    adjusted, running = list(comparisons), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, comparisons[index].p * (len(comparisons) - rank)))
        own = comparisons[index]
        detectable = own.detectable * _widening(len(comparisons), len(own.differences))
        corrected = replace(own, p=running, detectable=detectable)
        adjusted[index] = replace(corrected, outcome=outcome_of(corrected))
    return tuple(adjusted)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval of one arm's results; the interval is the point itself for one seed."""
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return mean, mean, mean
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1) / count)
    half = error * _t_quantile(0.975, count - 1)
    return mean, mean - half, mean + half


def proportion(hits: int, runs: int) -> tuple[float, float, float]:
    """The share of runs that hit, and its 95 % interval after Wilson.

    Examples:
        >>> [round(share, 3) for share in proportion(3, 120)]
        [0.025, 0.009, 0.071]
    """
    from scipy.stats import binomtest

    if not 0 <= hits <= runs or not runs:
        raise TombolaError(f"{hits} hits of {runs} runs have no share; give at least one run, and no more hits")
    found = binomtest(hits, runs).proportion_ci(method="wilson")
    return hits / runs, float(found.low), float(found.high)


def _widening(comparisons: int, count: int) -> float:
    """How much larger a difference must be to show among several comparisons than alone."""
    return _t_quantile(1 - 0.025 / comparisons, count - 1) / _t_quantile(0.975, count - 1) if count > 1 else 1.0


def _t_quantile(q: float, degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(q, degrees))


def _two_sided_p(mean: float, error: float, degrees: int) -> float:
    from scipy.stats import t

    if error < 1e-15:
        return 1.0 if abs(mean) < 1e-12 else 0.0
    return float(2 * t.sf(abs(mean) / error, degrees))
