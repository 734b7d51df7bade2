"""What a claim's page says first: the verdict in one sentence with both numbers, and what must be known beside it."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.evidence import minus
from tombola.papers.claims.claim import Claim, Kind
from tombola.papers.claims.claim_outcome import ClaimReport, Expectation, Judged
from tombola.papers.claims.measurement import MeasuredFigure
from tombola.studies import Result

MOST = 3
"""Rows that the verdict's sentence tells."""
BEYOND = "cannot be tested at this size"
NOT_RUN = "not yet run"
WORDS = {
    "agrees": "all that the paper leads us to expect was shown",
    "disagrees": "something of it was shown to be otherwise, where the paper's effect could have shown",
    "too few seeds": "these seeds cannot tell; what they are sure to show stands beside what the paper has",
    BEYOND: (
        "the runs lack what the statement is about, by a figure on its page: the damage to be mended, the length of "
        "the search, or the data. Then no outcome counts, for or against"
    ),
    "our question": "no paper states it",
    "checked": "a theorem, held against random instances; or a count",
    NOT_RUN: "the protocol stands, its runs do not; those of an earlier one, if any, are in the repository's history",
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


def short_answer(claim: Claim, report: ClaimReport | None) -> str:
    """What a user is told in one plain sentence; "" if the claim's file has none for what came out."""
    answer = answer_of(claim, report)
    return next((told for word, told in claim.short.items() if answer.startswith(word)), "")


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
        old = "; the records of the old one are in the repository's history" if claim.history else ""
        told = [own for own in claim.expected if own.paper is not None and own.counts][:MOST]
        asked = f" Paper: {'; '.join(map(_stated, told))}." if told else ""
        return f"**Not yet run under this protocol{old}.**{says}{asked}"
    told = "; ".join(_told(row, claim.kind) for row in _most_telling(report))
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


def _most_telling(report: ClaimReport) -> Sequence[Judged]:
    """The rows that made the verdict what it is, first."""
    order = {"contradicted": 0, "undecided": 1, "tie": 2, "holds": 3}
    rows = report.counted or report.rows
    if report.outcome == "agrees":
        return sorted(rows, key=lambda row: row.paper is None)[:MOST]
    return sorted(rows, key=lambda row: (order[row.finding], row.paper is None))[:MOST]


def _stated(expected: Expectation) -> str:
    """What the paper has for a difference, as shown, and where."""
    by = minus(f"{expected.paper:+g}")
    return f"{expected}, {by}{f' ({expected.place})' if expected.place else ''}"


def _told(row: Judged, kind: Kind) -> str:
    """What a difference came to here, with the paper's."""
    tie = ", a tie by construction" if kind != "a theorem" else ""
    words = {"holds": "", "contradicted": ", contradicted", "undecided": ", undecided", "tie": tie}
    paper = "" if row.paper is None else f" (paper {row.unit.signed(row.paper)})"
    return f"{row.expected}{paper} {row.in_words}{words[row.finding]}"


def _all(report: ClaimReport) -> list[Result | MeasuredFigure]:
    return [own for arm in report.arms.values() for own in arm]
