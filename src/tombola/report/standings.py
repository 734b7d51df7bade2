"""What a report says first: who wins, who does not, why, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tombola.evidence import Comparison, Verdict, deciding_interval, hardest_control, interval_text, listed
from tombola.report.arms import ArmResults, GatheredArms
from tombola.report.page_tables import Grid
from tombola.report.prose import (
    MARKS,
    NOTHING,
    SPACE,
    WORDS,
    counted,
    number,
    outcome_words,
    probability,
    seeds_of_tickets,
    seeds_text,
    share,
)

CLASSES = {True: "wins", False: "loses", None: "open"}
ORDER = {True: 0, None: 1, False: 2}
NAMED = 4
"""So many further winners are named, and more are counted."""


@dataclass(frozen=True)
class Standing:
    """One verdict as it is shown.

    Args:
        verdict: the verdict.
        ticket: the results of its ticket; None if the study has none.
    """

    verdict: Verdict
    ticket: ArmResults | None

    @property
    def look(self) -> str:
        """What its colour follows: wins, loses or open."""
        return CLASSES[self.verdict.wins]

    @property
    def word(self) -> str:
        """The verdict in up to three words, with its mark."""
        return f"{MARKS[self.verdict.wins]} {WORDS[self.verdict.wins]}"

    @property
    def hardest(self) -> Comparison | None:
        """The control that decides."""
        return hardest_control(self.verdict, self.verdict.controls)

    @property
    def cells(self) -> tuple[str, ...]:
        """The figures beside the verdict, in the order of `HEAD`."""
        verdict, hardest = self.verdict, self.hardest
        mean = verdict.means.get("ticket")
        return (
            share(verdict.density),
            NOTHING if mean is None else verdict.measure.text(mean).replace(" ", SPACE),
            self._difference(verdict.dense),
            NOTHING if hardest is None else f"{hardest.against} {self._difference(hardest)}",
            number(self.cost("search")),
            str(len(verdict.seeds)),
        )

    def _difference(self, own: Comparison) -> str:
        """With the interval that decided."""
        low, high, _ = deciding_interval(self.verdict, own)
        signed = own.measure.signed
        ends = f" [{signed(low)}, {signed(high)}]" if math.isfinite(low) and math.isfinite(high) else ""
        return f"{signed(own.mean)}{ends}".replace(" ", SPACE)

    def cost(self, of: str) -> float | None:
        """Dense epochs of its search or its training."""
        return None if self.ticket is None else self.ticket.cost(of, "dense_epochs")

    @property
    def note(self) -> str:
        """Over how many seeds, by which margin, and of which level the intervals beside it are."""
        verdict = self.verdict
        levels = {
            what: f"{100 * deciding_interval(verdict, own)[2]:.3g}{SPACE}%"
            for what, own in (("dense", verdict.dense), ("the control", self.hardest))
            if own is not None and math.isfinite(own.low)
        }
        same = len(set(levels.values())) == 1
        drawn = [next(iter(levels.values()))] if same else [f"{level} to {what}" for what, level in levels.items()]
        intervals = f"; intervals of {listed(drawn)}" if levels else ""
        most = f" of at most {verdict.most}, looked at after each" if verdict.most else ""
        return f"{seeds_text(verdict.seeds)}{most}, margin {verdict.measure.limit(verdict.margin)}{intervals}."


def standings(study: GatheredArms) -> list[Standing]:
    """Every verdict: winners first, then what is undecided; the sparsest first among each."""
    tickets = {verdict: arm for arm in study.arms if arm.role == "ticket" and (verdict := _identity(study, arm))}
    rows = [Standing(verdict, tickets.get(id(verdict))) for verdict in study.verdicts]
    return sorted(rows, key=lambda row: (ORDER[row.verdict.wins], row.verdict.density))


def heads(study: GatheredArms) -> tuple[str, ...]:
    """The headings of `Standing.cells`."""
    measure = study.measure
    return (
        "density",
        measure.name,
        f"minus dense, {measure.unit}",
        f"minus the hardest control, {measure.unit}",
        "search, dense epochs",
        "seeds",
    )


def comparisons_grid(study: GatheredArms) -> Grid:
    """Every comparison of every verdict, a row each."""
    head = ("ticket", "density", "against", "it is", study.measure.unit, "interval", "p", "seeds")
    rows, keys = [], []
    for row in standings(study):
        verdict = row.verdict
        for own in verdict.comparisons:
            against = f"{own.against}, {own.measure.name}" if own in verdict.also else own.against
            difference = (own.measure.signed(own.mean), interval_text(own), probability(own), str(len(own.differences)))
            rows.append((verdict.subject, share(verdict.density), against, outcome_words(own), *difference))
            keys.append((verdict.subject, share(verdict.density)))
    return Grid(head, tuple(rows), text=4, keys=tuple(keys))


def headline(study: GatheredArms) -> list[str]:
    """A few sentences: the tally; who wins, with the reason and the cost; who does not, with the reason."""
    if study.sanity:
        return [_sanity(study)]
    if not study.verdicts:
        return [f"This report shows {_scope(study)}. No verdict was asked for, so nothing is proven yet."]
    rows = standings(study)
    winners = [row for row in rows if row.verdict.wins]
    losers = [row for row in rows if row.verdict.wins is False]
    tally = f"Of {counted(len(rows), 'ticket')} ({_scope(study)}), {listed(_tally(rows))}."
    said = [_winner(study, winners)] if winners else [_no_winner(rows)]
    said += [_loser(losers[-1].verdict)] if losers else []
    return [*said, tally]


def _winner(study: GatheredArms, winners: Sequence[Standing]) -> str:
    first, *others = winners
    verdict = first.verdict
    search, training = first.cost("search"), first.cost("training")
    cost = ""
    if search is not None and training:
        cost = f", by a search that cost {_times(search / training)} its training"
    named = [f"{row.verdict.subject} at {share(row.verdict.density)}" for row in others]
    also = listed(named) if len(named) <= NAMED else counted(len(named), "further ticket")
    beside = f" {also} {'wins' if len(others) == 1 else 'win'}, too." if others else ""
    reason = _lowered(verdict.reason)
    said = f"{verdict.subject} wins with {share(verdict.density)} kept{cost}: {_reached(study, first)}; {reason}"
    return f"{said}{beside}"


def _no_winner(rows: Sequence[Standing]) -> str:
    """That none was shown, and what is nearest to it."""
    said = "No ticket was shown to keep up with the dense network and to beat its controls."
    near = [row for row in rows if row.verdict.wins is None]
    if not near:
        return said
    nearest = max(near, key=lambda row: row.verdict.measure.sign * row.verdict.dense.mean).verdict
    return f"{said} The nearest is {nearest.subject} with {share(nearest.density)} kept: {_lowered(nearest.reason)}"


def _loser(verdict: Verdict) -> str:
    return f"{verdict.subject} with {share(verdict.density)} kept does not win: {_lowered(verdict.reason)}"


def _reached(study: GatheredArms, winner: Standing) -> str:
    verdict, measure = winner.verdict, winner.verdict.measure
    whole = None if winner.ticket is None else study.dense(winner.ticket)
    same = f" over the same {seeds}" if (seeds := _other_seeds(verdict, whole)) else ""
    mean, dense = (measure.text(verdict.means[arm]).replace(" ", SPACE) for arm in ("ticket", "dense"))
    return f"{mean} {measure.name}, where the whole network has {dense}{same}"


def _other_seeds(verdict: Verdict, dense: ArmResults | None) -> str:
    """A verdict's number of seeds, where dense has others beside them; "" else."""
    return "" if dense is None or dense.seeds == tuple(verdict.seeds) else counted(len(verdict.seeds), "seed")


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _times(ratio: float) -> str:
    if ratio < 0.1:
        return "less than a tenth of"
    if 0.95 < ratio < 1.05:
        return "as much as"
    return f"{ratio:.2g} times" if ratio < 100 else f"{ratio:,.0f} times"


def _scope(study: GatheredArms) -> str:
    densities = counted(len(study.densities), "density", "densities")
    return f"{counted(len(study.methods), 'method')} at {densities} over {seeds_of_tickets(study)}"


def _tally(rows: Sequence[Standing]) -> list[str]:
    verbs = {True: ("wins", "win"), False: ("does not win", "do not win"), None: ("is undecided", "are undecided")}
    counts = {wins: sum(row.verdict.wins is wins for row in rows) for wins in verbs}
    return [f"{count} {verbs[wins][count > 1]}" for wins, count in counts.items() if count]


def _sanity(study: GatheredArms) -> str:
    checks = [check for sanity in study.sanity for check in sanity.checks if check.comparison is not None]
    findings = [check.finding for check in checks]
    words = {"passes": "passed", "fails": "failed", "undecided": "undecided"}
    counts = [f"{findings.count(finding)} {word}" for finding, word in words.items() if finding in findings]
    return f"Of {counted(len(findings), 'sanity check')} ({_scope(study)}), {listed(counts)}."


def _identity(study: GatheredArms, arm: ArmResults) -> int | None:
    verdict = study.verdict(arm)
    return None if verdict is None else id(verdict)
