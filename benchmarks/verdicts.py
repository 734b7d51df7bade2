"""How often verdicts are wrong, and how many seeds they take: simulated with all arms.

Run it as `python -m benchmarks.verdicts`; it takes two minutes. The tables stand in `docs/verdicts.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from tombola.evidence import MANDATORY, ONE_LOOK, EachSeed, Looks
from tombola.evidence.forecast import forecast
from tombola.evidence.ruling import Requirement, ruling

Array = NDArray[np.float64]

MARGIN, MOST = 0.5, 20
"""In points; seeds."""


@dataclass(frozen=True)
class Truth:
    """What is true of a ticket, in points.

    Args:
        name: what it is.
        means: the ticket minus dense and minus each control.
        spreads: of these differences over seeds.
        correlation: of the differences with each other, as all contain the same ticket.
        grid: the step of all results; 0 for none.
        tails: the degrees of freedom of t-distributed seeds; None for normal ones.
        skewed: whether seeds are exponential, with their long tail downwards, as where some trainings fail.
        wins: whether the ticket wins; None where it may be called either, better than its controls by less than counts.
    """

    name: str
    means: tuple[float, float, float, float]
    spreads: tuple[float, float, float, float]
    correlation: float = 0.5
    grid: float = 0.0
    tails: int | None = None
    skewed: bool = False
    wins: bool | None = None

    def differences(self, runs: int, seeds: int) -> Array:
        """Advantages of the ticket, (runs, seeds, arms)."""
        rng = np.random.default_rng(0)
        common, own = rng.standard_normal((runs, seeds, 1)), rng.standard_normal((runs, seeds, 4))
        noise = np.sqrt(self.correlation) * common + np.sqrt(1 - self.correlation) * own
        if self.tails:
            scale = np.sqrt((self.tails - 2) / rng.chisquare(self.tails, (runs, seeds, 1)))
            noise = noise * scale
        if self.skewed:
            noise = 1 + np.log(ndtr(noise))
        drawn = np.array(self.means) + np.array(self.spreads) * noise
        if not self.grid:
            return drawn
        # Each mean stays what it is: a number is rounded up as often as it lies near the higher step.
        return self.grid * np.floor(drawn / self.grid + rng.random(drawn.shape))


@dataclass(frozen=True)
class Anytime:
    """The confidence sequence of a t mixture, for comparison: it holds after any number of seeds.

    The effect has a normal prior of variance `width` times that of a seed, and the variance its right Haar prior (Lai,
    Annals of Statistics, 1976; Wang & Ramdas, 2024).

    Args:
        width: of the prior.
    """

    width: float = 1.0

    def critical(self, alpha: float, count: int) -> float:
        """The one-sided critical value: the two-sided one of twice the error."""
        if count < 3:
            return np.inf
        t = np.geomspace(0.5, 1e5, 20_000)
        degrees = count - 1
        ratio = (1 + t * t / degrees) / (1 + t * t / degrees / (1 + count * self.width))
        evidence = count / 2 * np.log(ratio) - 0.5 * np.log(1 + count * self.width)
        passed = np.flatnonzero(evidence >= np.log(1 / (2 * alpha)))
        return float(t[passed[0]]) if len(passed) else np.inf


@dataclass(frozen=True)
class Outcome:
    """What came of many runs of one truth under one rule.

    Args:
        wins: the share that were said to win.
        loses: the share that were said not to win.
        seeds: how many seeds it took, mean over runs.
        by: the share decided by a number of seeds.
    """

    wins: float
    loses: float
    seeds: float
    by: dict[int, float] = field(default_factory=dict)


def requirements(grid: float) -> list[Requirement]:
    """What a ticket must show, in points."""
    controls = [Requirement.against_control(name, MARGIN, grid) for name in MANDATORY]
    return [Requirement.against_dense(MARGIN, grid), *controls]


def simulated(truth: Truth, looks: Looks, counts: range, runs: int = 20_000, futility: bool = False) -> Outcome:
    """Judge many runs, each until it is decided.

    Args:
        truth: what is true.
        looks: how often one looks.
        counts: after which numbers of seeds.
        runs: how many.
        futility: stop where more seeds are futile, as `until="decided"` does; slow, for some hundred runs.
    """
    needs, seeds = requirements(truth.grid), truth.differences(runs, counts[-1])
    sums, squares = seeds.cumsum(1), (seeds**2).cumsum(1)
    verdict, taken = np.zeros(runs, int), np.full(runs, counts[-1])
    stopped = np.zeros(runs, bool)
    for count in counts:
        means = sums[:, count - 1] / count
        spreads = np.sqrt(np.maximum(squares[:, count - 1] - count * means**2, 0) / (count - 1))
        found = ruling(needs, means, spreads, count, looks)
        now = np.where(found.wins, 1, np.where(found.loses, -1, 0))
        new = ~stopped & (now != 0)
        verdict[new], taken[new] = now[new], count
        stopped |= new
        for run in np.flatnonzero(~stopped) if futility else ():
            ahead = forecast(seeds[run, :count], needs, looks, counts[-1])
            if ahead is not None and ahead.futile:
                stopped[run], taken[run] = True, count
    by = {count: float(((verdict != 0) & (taken <= count)).mean()) for count in (3, 5, 10, 20) if count <= counts[-1]}
    return Outcome(float((verdict == 1).mean()), float((verdict == -1).mean()), float(taken.mean()), by)


FAR, WIDE = (5.0, 5.0, 5.0), (1.0, 1.0, 1.0)
BOUNDARIES = (
    Truth("dense better by the margin", (-0.5, *FAR), (0.5, *WIDE), wins=False),
    Truth("the same, 360 test samples", (-0.5, *FAR), (0.5, *WIDE), grid=100 / 360, wins=False),
    Truth("the same, seeds vary by a third of a sample", (-0.5, *FAR), (0.1, *WIDE), grid=100 / 360, wins=False),
    Truth("the same, heavy tails (t, 5 degrees)", (-0.5, *FAR), (0.5, *WIDE), tails=5, wins=False),
    Truth("the same, skewed (exponential)", (-0.5, *FAR), (0.5, *WIDE), skewed=True, wins=False),
    Truth("a control as good", (0.0, 0.0, 3.0, 3.0), (0.3, 0.6, *WIDE[1:]), wins=False),
    Truth(
        "three controls as good, dense better by the margin", (-0.5, 0.0, 0.0, 0.0), (0.5, 0.7, 0.7, 0.7), wins=False
    ),
    Truth("the worst ticket that wins by all margins", (-0.5, 0.5, 0.5, 0.5), (0.5, 0.7, 0.7, 0.7), 0.0, wins=True),
    Truth("the same, differences correlated by 0.7", (-0.5, 0.5, 0.5, 0.5), (0.5, 0.7, 0.7, 0.7), 0.7, wins=True),
)
"""Where verdicts are most easily wrong."""
MET = (
    Truth("imp at 1.4 %, Fashion-MNIST", (-0.3, 3.0, 2.0, 3.6), (0.5, 0.3, 0.3, 0.2), grid=0.01, wins=True),
    Truth("imp at 20 %, digits", (-0.1, 1.0, 0.7, 0.7), (0.5, 0.6, 0.8, 0.4), 0.35, grid=100 / 360, wins=True),
    Truth("gem-miner at 20 %, digits", (0.0, 0.9, 0.6, 0.9), (0.5, 0.6, 0.4, 0.6), 0.5, grid=100 / 360, wins=True),
    Truth("gem-miner at 5 %, digits", (-1.0, 2.7, 1.0, 3.7), (0.7, 1.4, 0.8, 1.4), 0.2, grid=100 / 360, wins=False),
    Truth("snip at 5 %, Fashion-MNIST", (-1.2, -0.7, -0.4, 0.0), (0.25, 0.4, 0.4, 0.4), grid=0.01, wins=False),
    Truth("snip at 20 %, digits", (-0.55, 0.3, 0.4, 0.35), (0.65, 0.7, 0.85, 0.75), 0.7, grid=100 / 360, wins=False),
    Truth("random at 5 %, digits", (-33.0, 0.0, 0.0, 0.0), (11.0, 15.0, 15.0, 15.0), 0.7, grid=100 / 360, wins=False),
)
"""Tickets of the demo and of the claims, with the means and spreads that they had."""


def rightly(truth: Truth, outcome: Outcome) -> float:
    """The share of verdicts that are right, in percent."""
    return 100 * (outcome.wins if truth.wins else outcome.loses)


def wrongly(truth: Truth, outcome: Outcome) -> float:
    """The share of verdicts that are wrong, in percent; what is undecided is neither."""
    return 100 * (outcome.loses if truth.wins else outcome.wins)


def rows(truths: Sequence[Truth], table: Callable[[Truth], list[str]], heads: Sequence[str]) -> str:
    """A table in Markdown, a row for each truth."""
    lines = [["what is true", *heads], ["---"] * (len(heads) + 1)]
    lines += [[f"{truth.name}: {'wins' if truth.wins else 'does not win'}", *table(truth)] for truth in truths]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the tables."""
    each, anytime, every = EachSeed(MOST), Anytime(), range(3, MOST + 1)

    def errors(truth: Truth) -> list[str]:
        rules = [(ONE_LOOK, range(count, count + 1)) for count in (3, 5, 10)] + [(each, every), (anytime, every)]
        return [f"{wrongly(truth, simulated(truth, *rule)):.1f} %" for rule in rules]

    def power(truth: Truth) -> list[str]:
        fixed = [rightly(truth, simulated(truth, ONE_LOOK, range(count, count + 1))) for count in (3, 5, 10)]
        looked, rival = simulated(truth, each, every), simulated(truth, anytime, every)
        short = simulated(truth, each, every, 300, futility=True)
        return [
            ", ".join(f"{share:.0f}" for share in fixed) + " %",
            ", ".join(f"{100 * looked.by[count]:.0f}" for count in (5, 10, 20)) + " %",
            f"{looked.seeds:.1f}",
            f"{rightly(truth, short):.0f} %, {short.seeds:.1f}",
            f"{rightly(truth, rival):.0f} %, {rival.seeds:.1f}",
        ]

    print(rows(BOUNDARIES, errors, ["3 seeds", "5 seeds", "10 seeds", "after each seed", "confidence sequence"]))
    heads = ["3, 5, 10 seeds", "after each seed: by 5, 10, 20", "seeds", "with futility", "confidence sequence"]
    print("\n" + rows(MET, power, heads))


if __name__ == "__main__":
    main()
