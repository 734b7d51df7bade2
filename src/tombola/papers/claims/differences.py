"""The difference of two arms of a claim, and its bounds at any level: by t over seeds, or of two shares of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tombola.errors import TombolaError
from tombola.evidence import Looks
from tombola.evidence.statistics import half_width, mean_and_error, proportion_at
from tombola.papers.claims.units import Unit


class Difference(Protocol):
    """What one arm has more than another, with bounds of any level."""

    @property
    def mean(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...

    def least(self, level: float) -> float:
        """What it is at least, but for a chance of `level`."""
        ...

    def most(self, level: float) -> float:
        """What it is at most, but for a chance of `level`."""
        ...

    def half_width(self, level: float) -> float:
        """The smallest effect that is sure to be shown."""
        ...


class _Ends:
    """The ends of the 95 % interval, from bounds of any level."""

    @property
    def low(self: Difference) -> float:
        return self.least(0.025)

    @property
    def high(self: Difference) -> float:
        return self.most(0.025)


@dataclass(frozen=True)
class PairedDifference(_Ends):
    """The mean of differences, one a seed, with Student's t.

    Args:
        mean: of the differences.
        error: its standard error.
        count: the seeds.
        looks: how often the runs are looked at.
        furthest: no difference can be further from 0.
    """

    mean: float
    error: float
    count: int
    looks: Looks
    furthest: float = math.inf

    def least(self, level: float) -> float:
        return max(self.mean - self.half_width(level), -self.furthest)

    def most(self, level: float) -> float:
        return min(self.mean + self.half_width(level), self.furthest)

    def half_width(self, level: float) -> float:
        return half_width(self.error, level, self.count, self.looks)


@dataclass(frozen=True)
class SharesDifference(_Ends):
    """The difference of two shares of runs: Newcombe's interval (Statistics in Medicine, 1998), Fisher's exact test.

    Newcombe's interval joins those of Wilson. Where it shows a difference from 0 that Fisher's test does not, its end
    is 0: what is claimed, the exact test must show.

    Args:
        hits: runs of the left and of the right arm that did it.
        runs: how many runs each arm has.
    """

    hits: tuple[int, int]
    runs: int

    @property
    def mean(self) -> float:
        return (self.hits[0] - self.hits[1]) / self.runs

    def least(self, level: float) -> float:
        (one, least, _), (two, _, most) = (proportion_at(own, self.runs, level) for own in self.hits)
        bound = one - two - math.hypot(one - least, most - two)
        return min(bound, 0.0) if self._chance("greater") > level else bound

    def most(self, level: float) -> float:
        (one, _, most), (two, least, _) = (proportion_at(own, self.runs, level) for own in self.hits)
        bound = one - two + math.hypot(most - one, two - least)
        return max(bound, 0.0) if self._chance("less") > level else bound

    def half_width(self, level: float) -> float:
        """The share that the left arm would have to be ahead for Fisher's test to show it."""
        from scipy.stats import fisher_exact

        fewer = self.hits[1]
        for more in range(fewer, self.runs + 1):
            table = [[more, self.runs - more], [fewer, self.runs - fewer]]
            if fisher_exact(table, alternative="greater").pvalue <= level:
                return (more - fewer) / self.runs
        return math.inf

    def _chance(self, side: str) -> float:
        from scipy.stats import fisher_exact

        table = [[own, self.runs - own] for own in self.hits]
        return float(fisher_exact(table, alternative=side).pvalue)


def difference_of(left: Sequence[float], right: Sequence[float], unit: Unit, looks: Looks) -> Difference:
    """Compare two arms.

    Args:
        left: one figure a seed.
        right: the same seeds', in the same order.
        unit: of the figures; if they are shares of runs, all runs are counted together.
        looks: how often the runs are looked at.

    Raises:
        TombolaError: if the arms have different numbers of figures, or none.

    Examples:
        >>> from tombola.evidence import ONE_LOOK
        >>> from tombola.papers.claims.units import POINTS
        >>> round(difference_of([0.9, 0.92, 0.91], [0.8, 0.83, 0.81], POINTS, ONE_LOOK).low, 3)
        0.082
    """
    if len(left) != len(right) or not left:
        raise TombolaError(f"the arms have {len(left)} and {len(right)} results; give both arms the same seeds")
    if unit.runs:
        one, two = (round(sum(own) * unit.runs) for own in (left, right))
        return SharesDifference((one, two), unit.runs * len(left))
    mean, error = mean_and_error([a - b for a, b in zip(left, right, strict=True)], unit.step)
    return PairedDifference(mean, error, len(left), looks, unit.furthest)
