"""The verdict: does a ticket win, in numbers and in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tombola.evidence.arms import control_kind
from tombola.evidence.statistics import MARGIN, Comparison, holm, paired_comparison
from tombola.fields import known_fields
from tombola.registry import CONTROLS

MANDATORY = ("shuffle", "fresh-init", "random")

_TO = {"better": "than", "worse": "than", "equivalent": "to", "undecided": "against"}


@dataclass(frozen=True)
class Verdict:
    """Paired comparison of a ticket (or a method's tickets) with dense and controls over seeds.

    wins: True, False, or None where these seeds cannot tell.
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

    @staticmethod
    def of(content: dict[str, Any]) -> Verdict:
        """A verdict from what JSON made of it; what a newer version adds is left out."""
        typed = known_fields(Verdict, content)
        typed |= {
            "seeds": tuple(typed["seeds"]),
            "collapsed": tuple(typed.get("collapsed", ())),
            "dense": Comparison.of(typed["dense"]),
            "controls": tuple(Comparison.of(own) for own in typed["controls"]),
        }
        return Verdict(**typed)

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        return " ".join(
            [self._headline(), *(_words(c, self.margin) for c in (self.dense, *self.controls)), *self._dead()]
        )

    @property
    def summary(self) -> str:
        """The verdict in one line: against which arms the ticket came out how."""
        word = {True: "wins", False: "does not win", None: "undecided"}[self.wins]
        outcomes: dict[str, list[str]] = {}
        for own in (self.dense, *self.controls):
            outcomes.setdefault(own.outcome, []).append(own.against)
        parts = [f"{outcome} {_TO[outcome]} {', '.join(arms)}" for outcome, arms in outcomes.items()]
        return f"{self.subject} at {self.density:.4g}: {word} ({'; '.join(parts)})"

    def _headline(self) -> str:
        word = {True: "wins", False: "does not win", None: "is undecided"}[self.wins]
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        return f"{self.subject} at density {self.density:.4g} {word} over {seeds}."

    def _dead(self) -> list[str]:
        return [f"Nothing is left of {', '.join(self.collapsed)}: layer collapse."] if self.collapsed else []

    def __str__(self) -> str:
        return self.sentence


def judge(
    subject: str,
    density: float,
    results: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    margin: float = MARGIN,
    collapsed: tuple[str, ...] = (),
) -> Verdict:
    """The verdict from each arm's test metric by seed.

    results: "ticket", "dense" and every control by name, one number a seed, in the order of `seeds`. The
    ticket wins if it is not worse than dense by more than the margin and better than each mandatory control.
    """
    ticket = results["ticket"]
    dense = paired_comparison(ticket, results["dense"], "dense", margin)
    controls = holm(
        [paired_comparison(ticket, r, name, margin) for name, r in results.items() if name not in ("ticket", "dense")]
    )
    mandatory = [c for c in controls if c.against in MANDATORY]
    wins: bool | None = None
    if dense.low90 > -margin and len(mandatory) == len(MANDATORY) and all(c.outcome == "better" for c in mandatory):
        wins = True
    elif dense.high90 < -margin or any(c.outcome in ("worse", "equivalent") for c in mandatory):
        wins = False
    means = {name: sum(values) / len(values) for name, values in results.items()}
    return Verdict(subject, density, tuple(seeds), margin, means, dense, controls, wins, collapsed)


def _words(comparison: Comparison, margin: float) -> str:
    what = {"dense": "the dense network"}.get(comparison.against, f"its control '{comparison.against}'")
    points = f"{100 * comparison.mean:+.2f} points [{100 * comparison.low:+.2f}, {100 * comparison.high:+.2f}]"
    if comparison.outcome == "equivalent":
        kind = control_kind(comparison.against)
        means = CONTROLS.entry(kind).means if kind in CONTROLS and kind != "dense" else ""
        return (
            f"It is equivalent to {what} ({points}){': ' + means if means else f', within ±{100 * margin:g} points'}."
        )
    if comparison.outcome == "undecided":
        if len(comparison.differences) < 2:
            return f"Against {what} one seed shows nothing ({100 * comparison.mean:+.2f} points)."
        could = f"these seeds could have shown {100 * comparison.detectable:.2f} points"
        if comparison.detectable >= 1:
            could = f"{len(comparison.differences)} seeds are too few to show any difference"
        return f"Against {what} it is undecided ({points}): {could}."
    return f"It is {comparison.outcome} than {what} ({points})."
