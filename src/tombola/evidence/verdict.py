"""The verdict: whether a ticket wins, in numbers and in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tombola.errors import TombolaError
from tombola.evidence.deciding_bounds import level_words
from tombola.evidence.forecast import Forecast, forecast
from tombola.evidence.looks import EachSeed, Looks
from tombola.evidence.measure import ACCURACY, MARGIN, Measure
from tombola.evidence.reasons import listed, meaning_of, reasons
from tombola.evidence.ruling import Requirement, ruling
from tombola.evidence.statistics import ONE_LOOK, Comparison, grid_step, mean_and_error, paired_comparison

MANDATORY = ("shuffle", "fresh-init", "random")

Ended = Literal["", "decided", "futile", "budget", "most"]

_ENDED = {
    "futile": "stopped because more seeds would hardly decide it",
    "budget": "stopped because the budget is spent",
    "most": "all seeds that it may have are run",
}
_WINS = {True: "wins", False: "does not win", None: "is undecided"}


@dataclass(frozen=True)
class Verdict:
    """Paired comparison of a ticket, or of a method's tickets, with dense and controls over seeds.

    Printed, it shows whether the ticket wins and why, and a row for each comparison.

    Args:
        subject: what the ticket or its method is called.
        density: the kept share of units, in (0, 1].
        seeds: the seeds that all arms ran with.
        margin: a smaller difference counts as none, in the measure's unit.
        means: each arm's mean on the test split, by name.
        dense: the ticket minus the dense network.
        controls: the ticket minus each control. Each has a level of its own: to win, all must be beaten.
        wins: whether the ticket wins; None where these seeds cannot tell.
        collapsed: layers of which nothing is left.
        also: the ticket minus the dense network in further measures, in none of which it may be worse.
        reasons: why, each reason a clause that follows "it is".
        most: the largest number of seeds, where one looked after each; None where their number was fixed.
        ended: why no more seeds ran, where one looked after each: "decided", "futile", "budget" or "most".
        more: what more seeds would bring, where it is undecided.
        seconds: what one more seed takes of all arms together; 0 where that is not known.
    """

    subject: str
    density: float
    seeds: tuple[int, ...]
    margin: float
    means: Mapping[str, float]
    dense: Comparison
    controls: tuple[Comparison, ...]
    wins: bool | None
    collapsed: tuple[str, ...] = ()
    also: tuple[Comparison, ...] = ()
    reasons: tuple[str, ...] = ()
    most: int | None = None
    ended: Ended = ""
    more: Forecast | None = None
    seconds: float = 0.0

    @property
    def measure(self) -> Measure:
        """What the arms are compared by."""
        return self.dense.measure

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All of them: dense, each control, and dense in each further measure."""
        return (self.dense, *self.controls, *self.also)

    @property
    def mandatory(self) -> tuple[Comparison, ...]:
        """The controls that decide."""
        return tuple(own for own in self.controls if own.against in MANDATORY)

    @property
    def sentence(self) -> str:
        """The verdict in plain words, with its reasons and a sentence for each comparison."""
        sentences = (_sentence(comparison) for comparison in self.comparisons)
        levels = filter(None, [level_words(self)])
        return " ".join([self._headline(), self.reason, *sentences, *levels, *self._collapse()])

    @property
    def summary(self) -> str:
        """The verdict in one line, with its reasons."""
        word = {True: "wins", False: "does not win", None: "undecided"}[self.wins]
        return f"{self.subject} at {self.density:.4g}: {word} over {self._over()}: {self._because()}"

    @property
    def reason(self) -> str:
        """Why the verdict is what it is, in a sentence."""
        because = self._because()
        return f"It is {because}." if self.reasons and not self.wins_is_open_without_arms else f"{_capital(because)}."

    @property
    def wins_is_open_without_arms(self) -> bool:
        """Whether the first reason is a sentence of its own: arms that did not run, or a single seed."""
        return self.reasons[0].startswith(("the control", "one seed"))

    def _because(self) -> str:
        parts = [listed(self.reasons) or "the evidence is mixed"]
        if self.wins is None:
            parts += [_ENDED[self.ended]] if self.ended in _ENDED else []
            parts += [f"{self.more}{self._price()}"] if self.more and self.ended != "futile" else []
        return "; ".join(parts)

    def _price(self) -> str:
        seconds = self.seconds * (self.more.seeds or 0) if self.more else 0.0
        return f", {_duration(seconds)}" if seconds else ""

    def _over(self) -> str:
        seeds = f"{len(self.seeds)} seed{'s' * (len(self.seeds) != 1)}"
        return f"{seeds} of at most {self.most}" if self.most else seeds

    def _headline(self) -> str:
        return f"{self.subject} at density {self.density:.4g} {_WINS[self.wins]} over {self._over()}."

    def _collapse(self) -> list[str]:
        return [f"Nothing is left of {', '.join(self.collapsed)}: layer collapse."] if self.collapsed else []

    def __str__(self) -> str:
        rows = [("ticket minus", self.measure.unit, "interval", "outcome")]
        for comparison in self.comparisons:
            outcome = comparison.outcome
            if outcome == "undecided":
                outcome += f": {_detectable(comparison)}"
            name = comparison.against + (
                "" if comparison in (self.dense, *self.controls) else f", {comparison.measure.name}"
            )
            rows.append((name, comparison.measure.signed(comparison.mean), interval_text(comparison), outcome))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"{arm:<{widths[0]}}  {mean:>{widths[1]}}  {bounds:<{widths[2]}}  {outcome}"
            for arm, mean, bounds, outcome in rows
        ]
        said = " ".join([self._headline(), self.reason, *self._collapse()])
        return "\n".join([said, *lines, *filter(None, [level_words(self)])])


def judge(
    subject: str,
    density: float,
    results: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    margin: float | None = None,
    collapsed: tuple[str, ...] = (),
    *,
    measure: Measure = ACCURACY,
    also: Mapping[Measure, tuple[Sequence[float], Sequence[float]]] = {},
    looks: Looks = ONE_LOOK,
    seconds: float = 0.0,
) -> Verdict:
    """The verdict from each arm's test metric by seed.

    The ticket wins if it is not worse than dense by as much as the margin (non-inferiority, at 5 %), better than each
    mandatory control (superiority, at 2.5 %), and not worse than dense in any further measure. All must hold, so the
    chance of a wrong *wins* is at most 5 % without a correction. It *does not win* if one of them is ruled out, each
    at 5 % over their number: worse than dense by more than the margin, or not better than a control by as much.

    Args:
        subject: what the ticket or its method is called.
        density: the kept share of units, in (0, 1].
        results: the metric of "ticket", "dense" and each control by name, one number a seed, in the order of `seeds`.
        seeds: the seeds.
        margin: a smaller difference counts as none, in the metric's unit; the measure's own if None.
        collapsed: layers of which nothing is left.
        measure: what the metric is.
        also: further measures, each with the numbers of ticket and dense by seed.
        looks: how often one looks: once, or after each seed.
        seconds: what one more seed takes.

    Raises:
        TombolaError: if the arms have different numbers of results, or none.

    Examples:
        >>> arms = {"ticket": [0.90, 0.92, 0.91], "dense": [0.90, 0.92, 0.911], "shuffle": [0.80, 0.83, 0.81]}
        >>> arms |= {"fresh-init": [0.85, 0.86, 0.86], "random": [0.79, 0.80, 0.83]}
        >>> verdict = judge("snip", 0.1, arms, seeds=(0, 1, 2))
        >>> verdict.wins, [comparison.outcome for comparison in verdict.comparisons]
        (True, ['equivalent', 'better', 'better', 'better'])
    """
    ticket = results["ticket"]
    margin = margin_of(measure, results["dense"]) if margin is None else margin
    if not math.isfinite(margin) or margin < 0:
        raise TombolaError(f"the margin is {margin}; give a number of at least 0, in the metric's unit")
    step = min(grid_step(value for arm in results.values() for value in arm), margin) if measure.share else 0.0
    compared = {
        name: paired_comparison(ticket, other, name, margin, measure=measure, looks=looks, step=step)
        for name, other in results.items()
        if name != "ticket"
    }
    dense, controls = compared["dense"], tuple(own for name, own in compared.items() if name != "dense")
    further = tuple(
        paired_comparison(mine, its, "dense", margin_of(kind, its), measure=kind, looks=looks)
        for kind, (mine, its) in also.items()
    )
    mandatory = [own for own in controls if own.against in MANDATORY]
    deciding = [dense, *mandatory, *further]
    requirements = [
        Requirement.against_control(own.against, margin, step)
        if own in mandatory
        else Requirement.against_dense(own.margin, own.step)
        for own in deciding
    ]
    advantages = np.array([[own.measure.sign * d for d in own.differences] for own in deciding]).T
    count = len(advantages)
    spreads = advantages.std(0, ddof=1) if count > 1 else np.full(len(deciding), np.inf)
    found = ruling(requirements, advantages.mean(0), spreads, count, looks)
    missing = [name for name in MANDATORY if name not in compared]
    wins = True if found.wins and not missing else False if found.loses else None
    most = looks.most if isinstance(looks, EachSeed) else None
    return Verdict(
        subject,
        density,
        tuple(seeds),
        margin,
        {name: sum(values) / len(values) for name, values in results.items()},
        dense,
        controls,
        wins,
        collapsed,
        further,
        reasons(deciding, requirements, found, missing),
        most,
        more=None if wins is not None or missing else forecast(advantages, requirements, looks, most),
        seconds=seconds,
    )


def margin_of(measure: Measure, dense: Sequence[float]) -> float:
    """The margin of a measure where none is given: its own, half a point for a share, else the spread of dense.

    Args:
        measure: what is compared.
        dense: the dense network's numbers over seeds.

    Examples:
        >>> margin_of(Measure("mae", lower=True, share=False), [1.0, 1.5, 2.0])
        0.5
    """
    if measure.margin is not None:
        return measure.margin
    if measure.share:
        return MARGIN
    _, error = mean_and_error(dense)
    return error * math.sqrt(len(dense)) if math.isfinite(error) else 0.0


def interval_text(comparison: Comparison) -> str:
    """The interval off which a comparison's outcome is read, with its level; a dash where there is none."""
    low, high, level = comparison.decisive
    if not (math.isfinite(low) and math.isfinite(high)):
        return "–"
    return f"[{comparison.measure.signed(low)}, {comparison.measure.signed(high)}] {100 * level:.3g} %"


def _sentence(comparison: Comparison) -> str:
    measure = comparison.measure
    arm = {"dense": "the dense network"}.get(comparison.against, f"its control '{comparison.against}'")
    unit = " points" if measure.share else ""
    mean = f"{measure.signed(comparison.mean)}{unit}"
    figures = f"{mean}, {interval_text(comparison)}"
    if comparison.against == "dense" and measure is not ACCURACY and measure.name != ACCURACY.name:
        arm += f" in {measure.name}"
    margin = measure.limit(comparison.margin)
    if comparison.outcome == "equivalent":
        means = "" if comparison.against == "dense" else meaning_of(comparison.against)
        return f"It is equivalent to {arm} ({figures}){': ' + means if means else f', within ±{margin}'}."
    if comparison.outcome == "undecided":
        if len(comparison.differences) < 2:
            return f"Against {arm} one seed shows nothing ({mean})."
        return f"Against {arm} it is undecided ({figures}): {_detectable(comparison)}."
    if comparison.outcome in ("not worse", "not better"):
        return f"It is {comparison.outcome} than {arm} by as much as {margin} ({figures})."
    return f"It is {comparison.outcome} than {arm} ({figures})."


def _detectable(comparison: Comparison) -> str:
    """What the seeds of an undecided comparison could have shown."""
    count = len(comparison.differences)
    if count < 2:
        return "one seed shows nothing"
    if not math.isfinite(comparison.detectable) or (comparison.measure.share and comparison.detectable >= 1):
        return f"{count} seeds are too few to show any difference"
    return f"only differences above {comparison.measure.amount(comparison.detectable)} would show with {count} seeds"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def ended(verdict: Verdict, why: Ended) -> Verdict:
    """The verdict with why no more seeds ran."""
    return replace(verdict, ended="decided" if verdict.wins is not None else why)
