"""The list of all claims as Markdown: what a user asks, the answer, the method and its cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tombola.errors import FileError
from tombola.files import content_of, write_atomically
from tombola.papers.claims.claim import Claim, Protocol
from tombola.papers.claims.claim_outcome import ClaimReport
from tombola.papers.claims.claim_pages import FULL_SIZE
from tombola.papers.claims.claim_prices import CORES, GPU, quote
from tombola.papers.claims.claim_words import BEYOND, NOT_RUN, WORDS, answer_of, short_answer
from tombola.papers.claims.dense_table import beside_dense, dense_table
from tombola.papers.claims.side_by_side import side_by_side

TERMS = {
    "Density": "the share of the weights that a ticket keeps; 0.05 is 5 %",
    "Ticket": "a mask over the weights, and the values from which what it keeps trains",
    "Dense": "the whole network, trained by the same recipe",
    "IMP": "iterative magnitude pruning: train, remove the smallest weights, set the rest back, again",
    "Rewinding": "setting the weights back to an early step of training, and not to the initialisation",
    "Shuffled": "the mask's zeros moved within each layer, which keeps the counts and nothing else",
    "Fresh initialisation": "the mask with weights that are drawn anew",
    "Points": "percentage points of accuracy on test images",
    "Barrier": "how much worse than two networks the worst on the straight line between their weights is",
    "Could show": "the smallest effect that this many seeds are sure to find, by how much they differ from each other",
    "Beside": "asked for interest; the verdict does not depend on it",
}
"""The terms that every page uses, for readers who do not know the papers."""


def write_index(claims: Mapping[str, Claim], reports: Mapping[str, ClaimReport | None], folder: Path) -> Path:
    """Write index.md, and full-size.md with the price of what this machine cannot decide.

    Args:
        claims: in the order of the table.
        reports: what came out of them, by name; None for what has not run.
        folder: where the pages are.

    Returns:
        The path of the page.
    """
    write_atomically(folder / FULL_SIZE, full_size_page(claims, reports))
    page = folder / "index.md"
    write_atomically(page, index_page(claims, reports))
    return page


def check_index_place(folder: Path) -> None:
    """Refuse a folder in which the list would replace files that Tombola did not write.

    Raises:
        FileError: there are such files.
    """
    for name, own in (("index.md", b"tombola claims --pages"), (FULL_SIZE, b"tombola claims all --full --dry-run")):
        if (folder / name).exists() and own not in content_of(folder / name):
            raise FileError(f"{folder / name} was not written by Tombola; choose another folder, so that it stays")


def index_page(claims: Mapping[str, Claim], reports: Mapping[str, ClaimReport | None]) -> str:
    """The page as Markdown: a row for each claim that has run, what methods lose, what has not run, and the words."""
    answers = {name: answer_of(own, reports[name]) for name, own in claims.items()}
    ran = "\n".join(_row(own, reports[name]) for name, own in claims.items() if answers[name] != NOT_RUN)
    waiting = "\n".join(
        f"| [{own.question}]({name}.md) | {own.topic} | {own.protocols['standard'].minutes} min |"
        for name, own in claims.items()
        if answers[name] == NOT_RUN
    )
    terms = "\n".join(f"- **{term}**: {meaning}." for term, meaning in TERMS.items())
    words = "\n".join(f"- *{word}*: {meaning}." for word, meaning in WORDS.items())
    return f"""# Claims

What papers state, measured again on data that anyone can get. Each question is put so that the paper's answer is yes.
The pages, their numbers and these tables are made from the records of the runs beside them: `tombola claims --pages`.
[What the words mean](#words) stands below.

## What came out

| question | answer | method | cost |
| --- | --- | --- | --- |
{ran}

What this machine cannot decide, and its price, is [one list]({FULL_SIZE}).

## What a method loses

Each method's tickets against the dense network of the same runs, in points of the metric, at shares of the weights that
are kept. The pages have the intervals. A search that costs nothing or some batches prunes before training; what
costs a few epochs prunes early in training, and what costs trainings after it. Figures of different networks do not
compare.

{dense_table(beside_dense(claims, reports))}

## Not yet run

| question | method | takes, on two cores |
| --- | --- | --- |
{waiting}

## Measure them again

```sh
tombola claims                                  # the list
tombola claims lottery-ticket --quick           # three minutes: does it run?
tombola claims lottery-ticket                   # the protocol whose outcome stands above
tombola claims all --full --dry-run             # the papers' own sizes, and what they would cost
```

## Words

{words}

{terms}
"""


def _row(claim: Claim, report: ClaimReport | None) -> str:
    answer = answer_of(claim, report).partition(" (")[0]
    told = " ".join((f"*{answer[0].upper()}{answer[1:]}.*", short_answer(claim, report))).strip()
    return f"| [{claim.question}]({claim.id}.md) | {told} | {claim.topic} | {cost(claim, report)} |"


def full_size_page(claims: Mapping[str, Claim], reports: Mapping[str, ClaimReport | None]) -> str:
    """The papers' own sizes with their prices as Markdown: first what cannot be tested smaller, then what is open."""
    ranks = {name: _rank(answer_of(claim, reports[name])) for name, claim in claims.items()}
    asked = sorted((name for name, claim in claims.items() if claim.kind == "a paper's"), key=lambda name: ranks[name])
    rows = "\n".join(_priced(claims[name], answer_of(claims[name], reports[name])) for name in asked)
    return f"""# What this machine cannot decide

Each claim's `--full` protocol has the paper's own data, network and length. None of them has run. A dry run lists and
prices them without their data: `tombola claims all --full --dry-run`. Hours on two cores are by what ResNet-20's
records took ({CORES / 1e9:g} GFLOP/s), those on one GPU suppose {GPU / 1e12:g} TFLOP/s.

| claim | here | trainings | hours on two cores | hours on one GPU |
| --- | --- | --- | --- | --- |
{rows}
"""


def _rank(answer: str) -> int:
    order = (BEYOND, "too few", "disagrees", NOT_RUN)
    return next((place for place, word in enumerate(order) if answer.startswith(word)), len(order))


def _priced(claim: Claim, answer: str) -> str:
    own = quote(claim, "full")
    trainings = "–" if own.trainings is None else f"{own.trainings:,.0f}"
    known = [f"{value:,.0f}" if value >= 10 else f"{value:.1g}" for value in own.hours if value is not None]
    hours = known or ["–", own.words]
    return f"| [{claim.title}]({claim.id}.md) | {answer} | {trainings} | {hours[0]} | {hours[1]} |"


def cost(claim: Claim, report: ClaimReport | None) -> str:
    """What the search costs, as measured, and what it takes to measure the claim again."""
    minutes = claim.protocols["standard"].minutes
    again = f"{minutes} min"
    known = {row.what: row.here for row in side_by_side(claim, "standard", report)}
    search = known.get("search, in dense trainings", "–") if isinstance(claim.protocols["standard"], Protocol) else "–"
    return f"again in {again}" if search == "–" else f"search {search} trainings; again in {again}"
