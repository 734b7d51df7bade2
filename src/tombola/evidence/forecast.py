"""How many more seeds a verdict takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tombola.evidence.looks import Looks, OneLook
from tombola.evidence.ruling import Array, Requirement, ruling

PATHS = 400
"""How often the seeds to come are drawn."""
FAR = 60
"""No more seeds than this are looked ahead."""
LEAST = 0.1
"""With a smaller chance to be decided, more seeds are futile."""


@dataclass(frozen=True)
class Forecast:
    """What more seeds would bring.

    Args:
        seeds: how many more decide with a chance of one half; None if that takes more than `ahead`.
        ahead: how many were looked ahead.
        chance: that these decide.
        chance_of_five: that five more do, or as many as there may be.
    """

    seeds: int | None
    ahead: int
    chance: float
    chance_of_five: float

    @property
    def futile(self) -> bool:
        """Whether more seeds will hardly decide."""
        return self.chance < LEAST

    def __str__(self) -> str:
        if self.seeds is not None:
            return f"about {self.seeds} more seed{'s' * (self.seeds != 1)}"
        five = min(5, self.ahead)
        unlikely = f"{five} more seeds would decide it with a chance of {100 * self.chance_of_five:.0f} %"
        return f"{unlikely}, {self.ahead} more with {100 * self.chance:.0f} %" if self.ahead > five else unlikely


def forecast(
    differences: Array, requirements: Sequence[Requirement], looks: Looks, most: int | None = None
) -> Forecast | None:
    """Draw the seeds to come from what these say of mean, spread and correlation, and see when they decide.

    The mean and the spread are uncertain and drawn too, from their posterior under the usual flat prior, so that this
    is Bayesian predictive power (Spiegelhalter, Freedman & Blackburn, Controlled Clinical Trials, 1986). It decides
    nothing: it says only whether to go on, which under looks that hold over all seeds costs no error.

    Args:
        differences: the advantages so far, (seeds, arms).
        requirements: what must be shown, one for each arm.
        looks: how often one looks.
        most: the largest number of seeds in all; None looks `FAR` ahead.

    Returns:
        The forecast; None with fewer than three seeds, or where no more may follow.
    """
    count, arms = differences.shape
    ahead = FAR if most is None else most - count
    if count < 3 or ahead < 1:
        return None
    rng = np.random.default_rng(0)
    mean, centred = differences.mean(0), differences - differences.mean(0)
    floor = np.array([own.step for own in requirements]) / 2
    scale = np.sqrt((count - 1) / rng.chisquare(count - 1, (PATHS, 1)))

    def noise(*shape: int) -> Array:
        """Numbers with the covariance that the seeds have, and with the variance of the grid where they have less."""
        drawn = rng.standard_normal((*shape, count)) @ centred / np.sqrt(count - 1)
        lacking = np.sqrt(np.maximum(floor**2 - centred.var(0, ddof=1), 0))
        return drawn + lacking * rng.standard_normal((*shape, arms))

    centre = mean + scale * noise(PATHS) / np.sqrt(count)
    drawn = centre[:, None, :] + scale[:, None] * noise(PATHS, ahead)
    sums = differences.sum(0) + drawn.cumsum(1)
    squares = (differences**2).sum(0) + (drawn**2).cumsum(1)
    decided = np.zeros((PATHS, ahead), bool)
    for step in range(ahead):
        total = count + step + 1
        means = sums[:, step] / total
        spreads = np.sqrt(np.maximum(squares[:, step] - total * means**2, 0) / (total - 1))
        found = ruling(requirements, means, spreads, total, looks)
        decided[:, step] = found.wins | found.loses
    by_then = decided if isinstance(looks, OneLook) else np.logical_or.accumulate(decided, 1)
    chances = by_then.mean(0)
    enough = np.flatnonzero(chances >= 0.5)
    seeds = int(enough[0]) + 1 if len(enough) else None
    return Forecast(seeds, ahead, float(chances.max()), float(chances[min(5, ahead) - 1]))
