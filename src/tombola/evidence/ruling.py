"""Whether a ticket wins: what must be shown against each arm, and what would rule it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tombola.evidence.looks import Looks
from tombola.evidence.statistics import ALPHA

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Requirement:
    """What a ticket's advantage over one arm must be for the ticket to win. All are in the unit of their measure.

    Args:
        against: the arm: "dense", or a mandatory control.
        above: the advantage must be above this: −margin against dense (non-inferiority), 0 against a control
            (superiority).
        below: an advantage below this rules a win out: −margin against dense, +margin against a control, which then is
            not beaten by a difference that counts.
        alpha: the chance that an advantage of `above` seems larger.
        step: of the grid on which advantages lie.
        is_control: whether the arm is a control.
    """

    against: str
    above: float
    below: float
    alpha: float
    step: float = 0.0
    is_control: bool = False

    @property
    def margin(self) -> float:
        """The difference that counts."""
        return abs(self.below)

    @staticmethod
    def against_dense(margin: float, step: float = 0.0) -> Requirement:
        """Not worse by as much as the margin: the end of the 90 % interval decides."""
        return Requirement("dense", -margin, -margin, ALPHA, step)

    @staticmethod
    def against_control(name: str, margin: float, step: float = 0.0) -> Requirement:
        """Better: the end of the 95 % interval decides."""
        return Requirement(name, 0.0, margin, ALPHA / 2, step, is_control=True)


@dataclass(frozen=True)
class Ruling:
    """What is shown against each arm, in the order of the requirements; each field has one more axis in front for each
    axis of the means.

    Args:
        worst: the lower bound of the advantage, which must be above what is required.
        best: its upper bound, which rules a win out below the requirement's bound.
        met: whether the requirement is met.
        failed: whether a win is ruled out.
    """

    worst: Array
    best: Array
    met: Flags
    failed: Flags

    @property
    def wins(self) -> Flags:
        """All requirements are met. Each has its own α: all must hold, so that none needs a correction."""
        return np.all(self.met, -1)

    @property
    def loses(self) -> Flags:
        """One at least fails. Any of them may, so that each has its part of α (Bonferroni)."""
        return np.any(self.failed, -1) & ~self.wins


def ruling(requirements: Sequence[Requirement], means: Array, spreads: Array, count: int, looks: Looks) -> Ruling:
    """What some seeds show.

    Args:
        requirements: one for each arm.
        means: of the advantages, (…, arms).
        spreads: their standard deviations over seeds, of the same shape.
        count: the seeds.
        looks: how often one looks.
    """
    steps = np.array([own.step for own in requirements])
    errors = np.maximum(spreads, steps / 2) / np.sqrt(count)
    needed = np.array([looks.critical(own.alpha, count) for own in requirements])
    ruled_out = looks.critical(ALPHA / len(requirements), count)
    if not np.isfinite(ruled_out):
        none = np.zeros(np.shape(means), bool)
        return Ruling(np.full(np.shape(means), -np.inf), np.full(np.shape(means), np.inf), none, none)
    worst, best = means - needed * errors, means + ruled_out * errors
    above, below = (np.array([getattr(own, side) for own in requirements]) for side in ("above", "below"))
    return Ruling(worst, best, worst > above, best < below)
