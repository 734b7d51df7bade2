"""A claim's page as Markdown with a chart, and its table: the verdict, what the paper did and what we did."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import vl_convert
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tombola.errors import FileError
from tombola.evidence import interval
from tombola.files import content_of, write_atomically
from tombola.papers.claims.claim import Claim, Level, Protocol
from tombola.papers.claims.claim_outcome import ClaimReport, Judged
from tombola.papers.claims.claim_words import beside_it, short_answer, verdict_line
from tombola.papers.claims.forest_plot import forest_plot
from tombola.papers.claims.measurement import MeasuredFigure, MeasuredRow, Measurement
from tombola.papers.claims.side_by_side import side_by_side
from tombola.papers.claims.units import Unit
from tombola.report.prose import counted
from tombola.studies import Result
from tombola.training import Recipe

FULL_SIZE, LISTED = "full-size.md", "the list of what this machine cannot decide"
"""The page of prices, and how claims' files speak of it."""
STYLES = {"holds": "green", "contradicted": "red", "undecided": "yellow", "tie": "yellow"}


def claim_table(claim: Claim, report: ClaimReport) -> Table:
    """Draw a table for the terminal: each expectation with its difference, the bound that decides, and the finding."""
    table = Table(title=claim.title, box=SIMPLE_HEAD, header_style="bold")
    for heading in ("expected", "finding", "difference", "decided by", "could show", "paper"):
        table.add_column(heading)
    for row in report.rows:
        difference, decided, shown, paper = _numbers(row)
        table.add_row(
            str(row.expected), Text(row.finding, style=STYLES[row.finding]), difference, decided, shown, paper
        )
    return table


def write_claim(claim: Claim, level: Level, report: ClaimReport | None, folder: Path) -> Path:
    """Write a claim's page and its chart.

    Args:
        claim: what was measured.
        level: the protocol that ran.
        report: what came out; None if it has not run.
        folder: where ID.md and ID.svg are written; an earlier page is replaced.

    Returns:
        The path of the page.
    """
    page = folder / f"{claim.id}.md"
    write_atomically(page, claim_page(claim, level, report))
    if report is not None:
        chart = vl_convert.vegalite_to_svg(forest_plot(report), vl_version="6.4")
        write_atomically(page.with_suffix(".svg"), chart)
    return page


def check_claim_place(claim: Claim, folder: Path) -> None:
    """Refuse a folder in which a claim's page, chart or records would replace files that Tombola did not write.

    Raises:
        FileError: there are such files.
    """
    page, chart, records = (folder / f"{claim.id}.{kind}" for kind in ("md", "svg", "jsonl"))
    command, settings = f"tombola claims {claim.id}".encode(), b'"settings"'
    ours = page.is_file() and command in content_of(page)
    measured = records.is_file() and (settings in content_of(records) or not records.stat().st_size)
    for path, own in ((page, ours), (chart, ours), (records, measured)):
        if path.exists() and not own:
            raise FileError(f"{path} was not written by Tombola; choose another folder, so that it stays")


def claim_page(claim: Claim, level: Level, report: ClaimReport | None) -> str:
    """The page of a claim as Markdown: on one screen, with the tables of arms folded below."""
    protocol = claim.protocols[level]
    command = f"tombola claims {claim.id}" + ("" if level == "standard" else f" --{level}")
    parts = [f"# {claim.title}", f"*{claim.question}* {short_answer(claim, report)}".rstrip()]
    parts.append(" ".join([verdict_line(claim, report), *beside_it(claim, report)]))
    if claim.why and report is not None:
        parts.append(f"{'Why, as measured' if claim.known == 'measured' else 'Why, as we suppose'}: {claim.why}.")
    if report is not None:
        parts.append(f"![Our intervals, and the paper's values]({claim.id}.svg)")
        parts.append(
            "A line is our 95 % interval, a diamond the paper's value, the shade what counts as none, a small tick the "
            "smallest effect that these seeds are sure to show. [What the words mean](index.md#words)."
        )
    if claim.kind != "a theorem":
        parts.append(_beside(claim, level, report))
    parts.append(
        f"> {claim.statement}\n\n{claim.source}.{f' Numbers: {claim.paper.table}.' if claim.paper.table else ''}"
    )
    if claim.disputed:
        parts.append(f"**The paper against itself.** {claim.disputed}")
    if claim.next:
        told = claim.next.replace(LISTED, f"[{LISTED}]({FULL_SIZE})")
        parts.append(f"**What would change this.** {told[0].upper()}{told[1:]}.")
    parts.append(f"Again: `{command}` ({_price(protocol)}).")
    parts.append(_folded(claim, protocol, report))
    return "\n\n".join(parts) + "\n"


def _price(protocol: Protocol | Measurement) -> str:
    minutes = protocol.minutes
    return f"{minutes} minute{'s' * (minutes != '1')} on two cores" if minutes[:1].isdigit() else minutes


def _beside(claim: Claim, level: Level, report: ClaimReport | None) -> str:
    """The table "paper | here | can it decide?"."""
    rows = "\n".join(
        f"| {row.what} | {row.paper} | {row.here} | {row.decides} |" for row in side_by_side(claim, level, report)
    )
    return f"| | paper | here | can it decide? |\n| --- | --- | --- | --- |\n{rows}"


def _folded(claim: Claim, protocol: Protocol | Measurement, report: ClaimReport | None) -> str:
    """Expectations and arms, below what is seen at once."""
    parts = [] if report is None else [_expectations(report)]
    if report is not None:
        parts += _of_figures(report) if isinstance(protocol, Measurement) else _of_runs(report)
    if isinstance(protocol, Measurement):
        parts.append(protocol.ran)
    else:
        parts.append(f"Recipe: {_recipe(protocol.task.recipe)}.")
    if claim.notes:
        parts.append(claim.notes)
    if report is None:
        parts += [f"Expected: {', '.join(f'*{own}*' for own in claim.expected)}."]
    inside = "\n\n".join(parts)
    return f"<details markdown>\n<summary>Expectations, arms and recipe</summary>\n\n{inside}\n\n</details>"


def _expectations(report: ClaimReport) -> str:
    rows = "\n".join(
        f"| {row.expected}{'' if row.expected.counts else ' (beside)'} | {' | '.join(_numbers(row))} | {row.finding} |"
        for row in report.rows
    )
    reasons = dict.fromkeys(
        f"{row.unit.size(row.margin)}: {row.expected.margin_reason(row.unit)}"
        + (f" ({row.expected.place})" if row.expected.place else "")
        for row in report.rows
    )
    return f"""| expected | difference (95 %) | decided by | could show | paper | finding |
| --- | --- | --- | --- | --- | --- |
{rows}

*A > B* holds if the difference lies above 0, and is contradicted if it is shown to be below the margin; *A ≥ B* holds
if it lies above minus the margin, and is contradicted if it is shown to be below that. All must hold, which needs no
correction; contradictions are corrected for their number. Margins: {"; ".join(reasons)}."""


def _numbers(row: Judged) -> tuple[str, str, str, str]:
    """Difference, the bound that decides with its limit, what could be shown, and the paper's value; as texts."""
    unit = row.unit
    side = "at most" if row.finding == "contradicted" else "at least"
    known = math.isfinite(row.detectable)
    return (
        row.in_words,
        f"{side} {unit.signed(row.bound)} ({100 * row.chance:.3g} %) against {unit.signed(row.limit)}"
        if known
        else "–",
        unit.size(row.detectable) if known else "nothing",
        "–" if row.paper is None else unit.signed(row.paper),
    )


def _of_runs(report: ClaimReport) -> list[str]:
    """The table of arms of a protocol that trains, and what their runs took."""
    runs = {name: [result for result in arm if isinstance(result, Result)] for name, arm in report.arms.items()}
    # Arms that measure the same run differently share its digest; it ran once.
    results = list({result.digest: result for arm in runs.values() for result in arm}.values())
    first = results[0]
    rows = "\n".join(_arm_row(name, arm, report.units[name]) for name, arm in runs.items())
    return [
        f"""| arm | density | mean (95 % interval) | each seed | search |
| --- | --- | --- | --- | --- |
{rows}

The test split is read once, after training.""",
        f"{counted(len(results), 'run')} in {first.settings['precision']} on {first.settings['device']} with "
        f"{counted(first.settings['threads'], 'thread')}: {_time(results)} of searching and training, beside other "
        f"work on the same machine. Made by {_sources(results)}.",
    ]


def _of_figures(report: ClaimReport) -> list[str]:
    """The table of figures, and what they took."""
    figures = {name: [f for f in arm if isinstance(f, MeasuredFigure)] for name, arm in report.arms.items()}
    taken = [figure.taken for figure in next(iter(figures.values()))]
    first = taken[0].settings
    rows = "\n".join(
        f"| {name} | {mean} | {by_seed} |"
        for name, arm in figures.items()
        for mean, by_seed in [_figures(arm, report.units[name])]
    )
    return [
        f"| figure | mean (95 % interval) | each seed |\n| --- | --- | --- |\n{rows}",
        f"On {first['device']} with {counted(first['threads'], 'thread')}: "
        f"{_minutes(sum(row.seconds for row in taken))}, beside other work on the same machine. "
        f"Made by {_sources(taken)}.",
    ]


def _arm_row(name: str, results: Sequence[Result], unit: Unit) -> str:
    mean, by_seed = _figures(results, unit)
    rate = f", lr {results[0].settings['lr']:g}" if results[0].settings.get("lr") else ""
    seconds = [result.search["seconds"] for result in results if "seconds" in result.search]
    search = f"{median(seconds):.3g} s" if seconds else ""
    return f"| {name}{rate} | {results[0].weight_density:.2%} | {mean} | {by_seed} | {search} |"


def _figures(arm: Sequence[Result] | Sequence[MeasuredFigure], unit: Unit) -> tuple[str, str]:
    """The mean of an arm with its interval, unless that leaves what shares can be; and the figure of each seed."""
    values = [run.metric for run in arm]
    mean, low, high = interval(values)
    shown = [f"{unit.scale * value:.2f}".replace("-", "−") for value in (mean, low, high, *values)]
    if len(set(values)) == 1:
        return f"{shown[0]} {unit.sign}".rstrip(), "all the same" if len(arm) > 1 else shown[0]
    ends = f" ({shown[1]} … {shown[2]})" if unit.ends[0] <= low and high <= unit.ends[1] else ""
    return f"{shown[0]} {unit.sign}".rstrip() + ends, ", ".join(shown[3:])


def _recipe(recipe: Recipe) -> str:
    fields = ("epochs", "batch", "optimizer", "lr", "schedule", "weight_decay", "augment")
    return ", ".join(f"{name.replace('_', ' ')} {getattr(recipe, name) or 'none'}" for name in fields)


def _time(results: Sequence[Result]) -> str:
    # Tickets and controls of one search carry its seconds each; it is counted once.
    searches = {(r.settings["seed"], json.dumps(r.settings["subject"])): r.search.get("seconds", 0.0) for r in results}
    return _minutes(sum(searches.values()) + sum(result.training["seconds"] for result in results))


def _minutes(seconds: float) -> str:
    return counted(round(seconds / 60), "minute") if seconds >= 60 else "less than a minute"


def _sources(results: Sequence[Result] | Sequence[MeasuredRow]) -> str:
    sources = sorted({result.source for result in results})
    return f"source{'s' * (len(sources) > 1)} {', '.join(sources)}"
