"""What a claim's page says first: the verdict in one sentence with both numbers, and what must be known beside it."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.papers.claims.claim import Claim
from tombola.papers.claims.claim_outcome import ClaimReport, Judged
from tombola.papers.claims.measurement import MeasuredFigure
from tombola.studies import Result

BEYOND = "cannot be tested at this size"
NOT_RUN = "not yet run"
WORDS = {
    "agrees": "all that the paper leads us to expect was shown",
    "disagrees": "something of it was shown to be otherwise",
    "too few seeds": "these seeds cannot tell; what they could have shown stands beside what the paper has",
    BEYOND: "what it would take stands on its page",
    "our question": "no paper states it",
    "checked": "a theorem, held against random instances; or a count",
    NOT_RUN: "the protocol stands, its runs do not; those of an earlier protocol are in the repository's history",
}
"""What can be said of a claim, and what that means."""


def answer_of(claim: Claim, report: ClaimReport | None) -> str:
    """A claim's answer in a few words, which begin with one of `WORDS`; or "fails" for a theorem that does."""
    if claim.beyond:
        return BEYOND
    if report is None:
        return NOT_RUN
    if claim.kind == "ours":
        return "our question"
    if claim.kind == "a theorem":
        kept = (
            row.finding == "holds" or (row.finding == "tie" and row.expected.relation == "≥") for row in report.rows
        )
        return "checked" if all(kept) else "fails"
    return report.answer


def verdict_line(claim: Claim, report: ClaimReport | None) -> str:
    """The verdict in one sentence, with the paper's numbers and those measured here."""
    answer = answer_of(claim, report)
    word = f"**{answer[0].upper()}{answer[1:]}.**"
    says = f" Paper: {claim.paper.says}." if claim.paper.says else ""
    if claim.beyond:
        word += f" {claim.beyond}"
    if claim.beyond and report is None:
        return word
    if report is None:
        return f"**Not yet run under this protocol;** the records of the old one are in the repository's history.{says}"
    told = "; ".join(map(_told, _most_telling(report)))
    return f"{word}{says} Here: {told}."


def beside_it(claim: Claim, report: ClaimReport | None) -> list[str]:
    """What must be known before the verdict is quoted: what was added, stopped or mixed."""
    said = []
    if report is not None:
        sources = {own.taken.source if isinstance(own, MeasuredFigure) else own.source for own in _all(report)}
        if len(sources) > 1:
            said.append(f"The runs were made by {len(sources)} versions of the code.")
        protocol = claim.protocols["standard"]
        if getattr(protocol, "sequential", False):
            said.append(
                f"Seeds are added until it is decided, at most {protocol.seeds}; the bounds hold over all looks."
            )
        excluded = [row for row in report.counted if row.excludes_paper and row.finding == "holds"]
        if excluded and claim.kind == "a paper's":
            rows = ", ".join(str(row.expected) for row in excluded)
            said.append(f"In size it is not the paper's: our interval excludes its number of {rows}.")
    return [*([claim.history] if claim.history else []), *said]


def _most_telling(report: ClaimReport, most: int = 3) -> Sequence[Judged]:
    """The rows that made the verdict what it is, first."""
    order = {"contradicted": 0, "undecided": 1, "tie": 2, "holds": 3}
    rows = report.counted or report.rows
    if report.outcome == "agrees":
        return sorted(rows, key=lambda row: row.paper is None)[:most]
    return sorted(rows, key=lambda row: (order[row.finding], row.paper is None))[:most]


def _told(row: Judged) -> str:
    paper = "" if row.paper is None else f" (paper {row.unit.signed(row.paper)})"
    words = {
        "holds": "",
        "contradicted": ", contradicted",
        "undecided": ", undecided",
        "tie": ", a tie by construction",
    }
    return f"{row.expected}{paper} {row.in_words}{words[row.finding]}"


def _all(report: ClaimReport) -> list[Result | MeasuredFigure]:
    return [own for arm in report.arms.values() for own in arm]
