"""When a comparison may be looked at: once, after a number of seeds fixed before; or after each seed up to a most."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tombola.errors import TombolaError

Array = NDArray[np.float64]

FIRST = 3
"""The seeds before the first look: with two, a t interval is too wide to decide anything."""
CELLS, REACH = 120, 6.5
"""The grid on which the t statistic is followed from look to look: cells, and normal deviates to either side."""


class Looks(Protocol):
    """How many standard errors a mean must lie from a value to be told from it."""

    def critical(self, alpha: float, count: int) -> float:
        """The one-sided critical value of t.

        Args:
            alpha: the chance, over all looks, of a mean that is at the value to pass it.
            count: the seeds so far.
        """
        ...


@dataclass(frozen=True)
class OneLook:
    """One look, after a number of seeds that was fixed before the first: Student's t.

    Examples:
        >>> round(OneLook().critical(0.025, 5), 3)
        2.776
    """

    def critical(self, alpha: float, count: int) -> float:
        from scipy.special import stdtrit

        return float(-stdtrit(count - 1, alpha)) if count > 1 else np.inf


@dataclass(frozen=True)
class EachSeed:
    """A look after each seed from the third to the last: a group-sequential t test, exact over all looks.

    The error is spent evenly over the looks (Kim & DeMets, Biometrika, 1987: the power family, exponent 1), and the
    boundaries follow from the exact law of successive t statistics (Jennison & Turnbull, Biometrika, 1991). Whoever
    stops earlier, for whatever reason, errs less. Intervals are repeated confidence intervals (Jennison & Turnbull,
    JRSS B, 1989): all of them together hold with their level.

    Args:
        most: the largest number of seeds, which must be chosen before the first look, as it decides all boundaries.

    Raises:
        TombolaError: if `most` is below 3, or above 100.

    Examples:
        >>> looks = EachSeed(20)
        >>> [round(looks.critical(0.025, count), 1) for count in (3, 4, 5, 10, 20)]
        [18.9, 8.6, 6.0, 3.4, 2.7]
    """

    most: int = 20

    def __post_init__(self) -> None:
        if not FIRST <= self.most <= 100:
            raise TombolaError(f"until it is decided, with at most {self.most} seeds; give from {FIRST} to 100")

    def critical(self, alpha: float, count: int) -> float:
        return _boundaries(self.most, alpha).get(count, np.inf)


@cache
def _boundaries(most: int, alpha: float) -> dict[int, float]:
    """The critical value of t at each look."""
    from scipy.special import ndtr, stdtrit

    edges = np.linspace(-REACH, REACH, CELLS + 1)
    spent = alpha / (most - FIRST + 1)
    boundaries: dict[int, float] = {}
    mass = np.diff(ndtr(edges))
    for count in range(FIRST, most + 1):
        # The chance to have passed no boundary before, and to be above each edge now.
        above = ndtr(-edges) if count == FIRST else mass @ _onward(count - 1)
        cell = int(np.searchsorted(-above, -spent))
        steps = np.log(above[cell - 1]), np.log(max(above[cell], 1e-300))
        deviate = edges[cell - 1] + (np.log(spent) - steps[0]) / (steps[1] - steps[0]) * (edges[1] - edges[0])
        boundaries[count] = float(-stdtrit(count - 1, ndtr(-deviate)))
        mass = -np.diff(np.append(np.maximum(above, spent)[:cell], np.full(len(edges) - cell, spent)))
    return boundaries


@cache
def _onward(count: int) -> Array:
    """From each cell after `count` seeds, the chance to be above each edge after one more.

    With mean 0, r = √n · mean / root mean square is a Markov chain: the next value, over the root of the sum of squares
    so far, is independent of r and has Student's law. A cell is an interval of the normal deviate of t.
    """
    from scipy.special import ndtr

    edges = np.linspace(-REACH, REACH, CELLS + 1)
    density = np.exp(-edges * edges / 2) / np.sqrt(2 * np.pi)
    centres = -np.diff(density) / np.diff(ndtr(edges))
    aside = (edges[1] - edges[0]) / np.sqrt(12)  # two points a cell, of its mean and its variance
    onto = _ratio(edges, count + 1)[None, :]
    left, right = (_above(onto, _ratio(centres + by, count)[:, None], count) for by in (-aside, aside))
    chances = (left + right) / 2
    chances[:, 0], chances[:, -1] = 1.0, 0.0
    return chances


def _ratio(deviates: Array, count: int) -> Array:
    """√n · mean / root mean square, from the normal deviates of t."""
    from scipy.special import ndtr, stdtrit

    t = -np.sign(deviates) * stdtrit(count - 1, ndtr(-np.abs(deviates)))
    return t * np.sqrt(count / (count - 1 + t * t))


def _above(edge: Array, ratio: Array, count: int) -> Array:
    """The chance that (r + y) / √(1 + y²) is above an edge, where √n · y is Student's with n degrees of freedom."""
    from scipy.special import stdtr

    edge, ratio = np.broadcast_arrays(edge, ratio)
    mirrored = edge <= -1
    sign = np.where(mirrored, -1.0, 1.0)
    s, r = sign * edge, sign * ratio
    root = s * np.sqrt(np.maximum(1 + r * r - s * s, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        lower = np.where(s < 1, (root - r) / (1 - s * s), (r - root) / (s * s - 1))
        upper = np.where(s < 1, np.inf, (r + root) / (s * s - 1))
    chance = stdtr(count, -lower * np.sqrt(count)) - stdtr(count, -upper * np.sqrt(count))
    chance = np.where((s >= 1) & ((r <= 0) | (1 + r * r <= s * s)), 0.0, chance)
    return np.where(mirrored, 1 - chance, chance)
