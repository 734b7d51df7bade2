"""The verdict: whether a ticket wins, in numbers and in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tombola.evidence.arms import control_kind
from tombola.evidence.statistics import MARGIN, Comparison, holm, paired_comparison
from tombola.registry import CONTROLS

MANDATORY = ("shuffle", "fresh-init", "random")

_TO = {"better": "than", "worse": "than", "equivalent": "to", "undecided": "against"}


@dataclass(frozen=True)
class Verdict:
    """Paired comparison of a ticket, or of a method's tickets, with dense and controls over seeds.

    Printed, it shows whether the ticket wins, and a row for each comparison.

    Args:
        subject: what the ticket or its method is called.
        density: the kept share of units, in (0, 1].
        seeds: the seeds that all arms ran with.
        margin: a smaller difference counts as none, in the metric's unit.
        means: each arm's mean test metric, by name.
        dense: the ticket minus the dense network.
        controls: the ticket minus each control, corrected for their number.
        wins: whether the ticket wins; None where these seeds cannot tell.
        collapsed: layers of which nothing is left.
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

    @property
    def sentence(self) -> str:
        """The verdict in plain words, with a sentence for each comparison."""
        sentences = (_sentence(comparison, self.margin) for comparison in (self.dense, *self.controls))
        return " ".join([self._headline(), *sentences, *self._collapse()])

    @property
    def summary(self) -> str:
        """The verdict in one line, with the arms grouped by outcome."""
        word = {True: "wins", False: "does not win", None: "undecided"}[self.wins]
        outcomes: dict[str, list[str]] = {}
        for comparison in (self.dense, *self.controls):
            outcomes.setdefault(comparison.outcome, []).append(comparison.against)
        parts = [f"{outcome} {_TO[outcome]} {', '.join(arms)}" for outcome, arms in outcomes.items()]
        return f"{self.subject} at {self.density:.4g}: {word} ({'; '.join(parts)})"

    def _headline(self) -> str:
        word = {True: "wins", False: "does not win", None: "is undecided"}[self.wins]
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        return f"{self.subject} at density {self.density:.4g} {word} over {seeds}."

    def _collapse(self) -> list[str]:
        return [f"Nothing is left of {', '.join(self.collapsed)}: layer collapse."] if self.collapsed else []

    def __str__(self) -> str:
        rows = [("ticket minus", "points", "95 % interval", "outcome")]
        for comparison in (self.dense, *self.controls):
            mean, low, high = (f"{100 * value:+.2f}" for value in (comparison.mean, comparison.low, comparison.high))
            outcome = comparison.outcome
            if outcome == "undecided":
                outcome += f"{_corrected(comparison)}: {_detectable(comparison)}"
            rows.append((comparison.against, mean, f"[{low}, {high}]", outcome))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"{arm:<{widths[0]}}  {mean:>{widths[1]}}  {bounds:<{widths[2]}}  {outcome}"
            for arm, mean, bounds, outcome in rows
        ]
        return "\n".join([" ".join([self._headline(), *self._collapse()]), *lines])


def judge(
    subject: str,
    density: float,
    results: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    margin: float = MARGIN,
    collapsed: tuple[str, ...] = (),
) -> Verdict:
    """The verdict from each arm's test metric by seed.

    The ticket wins if it is not worse than dense by more than the margin, and better than each mandatory control.

    Args:
        subject: what the ticket or its method is called.
        density: the kept share of units, in (0, 1].
        results: the metric of "ticket", "dense" and each control by name, one number a seed, in the order of `seeds`.
        seeds: the seeds.
        margin: a smaller difference counts as none, in the metric's unit.
        collapsed: layers of which nothing is left.

    Raises:
        TombolaError: if the arms have different numbers of results, or none.

    Examples:
        >>> arms = {"ticket": [0.90, 0.92, 0.91], "dense": [0.90, 0.92, 0.911], "shuffle": [0.80, 0.83, 0.81]}
        >>> arms |= {"fresh-init": [0.85, 0.86, 0.86], "random": [0.79, 0.80, 0.83]}
        >>> print(judge("snip", 0.1, arms, seeds=(0, 1, 2)))
        snip at density 0.1 wins over 3 seeds.
        ticket minus  points  95 % interval    outcome
        dense          -0.03  [-0.18, +0.11]   equivalent
        shuffle        +9.67  [+8.23, +11.10]  better
        fresh-init     +5.33  [+3.90, +6.77]   better
        random        +10.33  [+5.16, +15.50]  better
    """
    ticket = results["ticket"]
    dense = paired_comparison(ticket, results["dense"], "dense", margin)
    controls = holm(
        [paired_comparison(ticket, r, name, margin) for name, r in results.items() if name not in ("ticket", "dense")]
    )
    mandatory = [c for c in controls if c.against in MANDATORY]
    # Against dense two one-sided tests at 5 % decide, whose bounds are the ends of the 90 % interval.
    wins: bool | None = None
    if dense.low90 > -margin and len(mandatory) == len(MANDATORY) and all(c.outcome == "better" for c in mandatory):
        wins = True
    elif dense.high90 < -margin or any(c.outcome in ("worse", "equivalent") for c in mandatory):
        wins = False
    means = {name: sum(values) / len(values) for name, values in results.items()}
    return Verdict(subject, density, tuple(seeds), margin, means, dense, controls, wins, collapsed)


def _sentence(comparison: Comparison, margin: float) -> str:
    arm = {"dense": "the dense network"}.get(comparison.against, f"its control '{comparison.against}'")
    points = f"{100 * comparison.mean:+.2f} points [{100 * comparison.low:+.2f}, {100 * comparison.high:+.2f}]"
    if comparison.outcome == "equivalent":
        kind = control_kind(comparison.against)
        means = CONTROLS.entry(kind).means if kind in CONTROLS and kind != "dense" else ""
        return f"It is equivalent to {arm} ({points}){': ' + means if means else f', within ±{100 * margin:g} points'}."
    if comparison.outcome == "undecided":
        if len(comparison.differences) < 2:
            return f"Against {arm} one seed shows nothing ({100 * comparison.mean:+.2f} points)."
        return f"Against {arm} it is undecided ({points}){_corrected(comparison)}: {_detectable(comparison)}."
    return f"It is {comparison.outcome} than {arm} ({points})."


def _detectable(comparison: Comparison) -> str:
    """What the seeds of an undecided comparison could have shown."""
    count = len(comparison.differences)
    if count < 2:
        return "one seed shows nothing"
    if comparison.detectable >= 1:
        return f"{count} seeds are too few to show any difference"
    return f"only differences above {100 * comparison.detectable:.2f} points would show with {count} seeds"


def _corrected(comparison: Comparison) -> str:
    """Why an undecided comparison is undecided although its interval excludes 0; empty if that includes it."""
    return "" if comparison.low <= 0 <= comparison.high else " after Holm's correction"
