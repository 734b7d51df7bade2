"""A claim's page as Markdown with a chart, and its table: what the paper states, what we ran, what came out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import vl_convert
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tombola.errors import FileError
from tombola.evidence import interval
from tombola.files import content_of, write_atomically
from tombola.papers.claims.claim import Claim, Level
from tombola.papers.claims.claim_outcome import ClaimReport
from tombola.papers.claims.measurement import MeasuredFigure, MeasuredRow, Measurement
from tombola.papers.claims.units import POINTS, Unit
from tombola.report.charts import differences_chart, specification
from tombola.report.prose import counted, points, probability
from tombola.report.theme import LIGHT, vega_config
from tombola.studies import Result
from tombola.training import Recipe

FINDING = {"holds": "good", "contradicted": "bad", "undecided": "unsure"}
STYLES = {"holds": "green", "contradicted": "red", "undecided": "yellow"}


def claim_table(claim: Claim, report: ClaimReport) -> Table:
    """Draw a table for the terminal: each expectation with the difference of its arms, its interval and the finding."""
    table = Table(title=claim.title, box=SIMPLE_HEAD, header_style="bold")
    for heading in ("expected", "difference", "interval", "p (Holm)", "finding"):
        table.add_column(heading)
    for row, finding in zip(_rows(report), report.findings, strict=True):
        table.add_row(*row[:-1], Text(finding, style=STYLES[finding]))
    return table


def write_claim(claim: Claim, level: Level, report: ClaimReport, folder: Path) -> Path:
    """Write a claim's page and its chart.

    Args:
        claim: what was measured.
        level: the protocol that ran.
        report: what came out.
        folder: where ID.md and ID.svg are written; an earlier page is replaced.

    Returns:
        The path of the page.
    """
    page = folder / f"{claim.id}.md"
    write_atomically(page, claim_page(claim, level, report))
    write_atomically(page.with_suffix(".svg"), vl_convert.vegalite_to_svg(_chart(report), vl_version="6.4"))
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


def claim_page(claim: Claim, level: Level, report: ClaimReport) -> str:
    """The page of a claim as Markdown."""
    protocol = claim.protocols[level]
    rows = "\n".join(f"| {' | '.join(row)} |" for row in _rows(report))
    command = f"tombola claims {claim.id}" + ("" if level == "standard" else f" --{level}")
    sections = _of_figures if isinstance(protocol, Measurement) else _of_runs
    ran, arms = sections(claim, protocol, report, command)
    return f"""# {claim.title}

**{report.sentence.capitalize()}.**

> {claim.statement}

{claim.source}.

## What was run

{ran}

## What came out

![Differences between the arms, with their intervals]({claim.id}.svg)

| expected | difference | interval | p (Holm) | finding |
| --- | --- | --- | --- | --- |
{rows}

{arms}
"""


def _of_runs(claim: Claim, protocol: Any, report: ClaimReport, command: str) -> tuple[str, str]:
    """What was run by a protocol that trains arms, and the table of its arms."""
    runs = {name: [result for result in arm if isinstance(result, Result)] for name, arm in report.arms.items()}
    # Arms that measure the same run differently share its digest; it ran once.
    results = list({result.digest: result for arm in runs.values() for result in arm}.values())
    first = results[0]
    rows = "\n".join(_arm_row(name, arm, report.units[name]) for name, arm in runs.items())
    ran = f"""{counted(len(results), "run")}: {counted(len(runs), "arm")} over {counted(protocol.seeds, "seed")}, on
{protocol.task.data} with {protocol.task.model}; `{command}`.

- Recipe: {_recipe(protocol.task.recipe)}; {first.settings["precision"]} on {first.settings["device"]},
  {counted(first.settings["threads"], "thread")}.
- Differences from the paper: {claim.differs}
- Time: {_time(results)} of searching and training, beside other work on the same machine.
- Made by {_sources(results)}."""
    return (
        ran,
        f"""Differences are paired over seeds; of test accuracy, where an arm's name says nothing else.
{_reading(report)}
The test split is read once, after training.

| arm | density | mean (95 % interval) | each seed | search |
| --- | --- | --- | --- | --- |
{rows}""",
    )


def _of_figures(claim: Claim, protocol: Any, report: ClaimReport, command: str) -> tuple[str, str]:
    """What was run by a protocol that gives figures, and their table."""
    figures = {name: [f for f in arm if isinstance(f, MeasuredFigure)] for name, arm in report.arms.items()}
    taken = [figure.taken for figure in next(iter(figures.values()))]
    first = taken[0].settings
    rows = "\n".join(
        f"| {name} | {mean} | {by_seed} |"
        for name, arm in figures.items()
        for mean, by_seed in [_figures(arm, report.units[name])]
    )
    ran = f"""{counted(len(figures), "figure")} over {counted(protocol.seeds, "seed")}; `{command}`.

- {protocol.ran}
- On {first["device"]}, {counted(first["threads"], "thread")}.
- Differences from the paper: {claim.differs}
- Time: {_minutes(sum(row.seconds for row in taken))}, beside other work on the same machine.
- Made by {_sources(taken)}."""
    return (
        ran,
        f"""Differences are paired over seeds.
{_reading(report)}

| figure | mean (95 % interval) | each seed |
| --- | --- | --- |
{rows}""",
    )


def _rows(report: ClaimReport) -> list[list[str]]:
    return [
        [
            str(expected),
            f"{points(unit.scale * comparison.mean)} {unit.name}",
            f"{points(unit.scale * low)} … {points(unit.scale * high)} ({100 * chance:.3g} %)",
            probability(comparison),
            finding,
        ]
        for expected, comparison, finding in zip(report.expected, report.comparisons, report.findings, strict=True)
        for unit in [report.units[expected.left]]
        for low, high, chance in [comparison.decisive]
    ]


def _reading(report: ClaimReport) -> str:
    """How a finding follows from a difference."""
    return f"""*A > B* holds if the interval of A − B lies above 0; *A ≥ B* holds if it lies above −{_margins(report)}.
Intervals are corrected for the number of expectations, so that all findings together are wrong with a chance of 5 % at
most."""


def _margins(report: ClaimReport) -> str:
    margins = {
        f"{comparison.margin * unit.scale:g} {unit.name}"
        for expected, comparison in zip(report.expected, report.comparisons, strict=True)
        if expected.relation == "≥"
        for unit in [report.units[expected.left]]
    }
    return " or ".join(sorted(margins or {f"{POINTS.margin * POINTS.scale:g} {POINTS.name}"}))


def _arm_row(name: str, results: Sequence[Result], unit: Unit) -> str:
    mean, by_seed = _figures(results, unit)
    rate = f", lr {results[0].settings['lr']:g}" if results[0].settings.get("lr") else ""
    seconds = [result.search["seconds"] for result in results if "seconds" in result.search]
    search = f"{median(seconds):.3g} s" if seconds else ""
    return f"| {name}{rate} | {results[0].weight_density:.2%} | {mean} | {by_seed} | {search} |"


def _figures(arm: Sequence[Result] | Sequence[MeasuredFigure], unit: Unit) -> tuple[str, str]:
    """The mean of an arm with its interval, and the figure of each seed."""
    mean, low, high = (unit.scale * value for value in interval([run.metric for run in arm]))
    by_seed = ", ".join(f"{unit.scale * run.metric:.2f}" for run in arm)
    return f"{mean:.2f} {unit.sign} ({low:.2f} … {high:.2f})", by_seed


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


def _chart(report: ClaimReport) -> dict[str, Any]:
    rows = []
    for expected, comparison, finding in zip(report.expected, report.comparisons, report.findings, strict=True):
        unit = report.units[expected.left]
        low, high, _ = comparison.decisive
        span = {"mean": unit.scale * comparison.mean, "low": unit.scale * low, "high": unit.scale * high}
        rows.append({"expected": str(expected), "finding": finding, "unit": unit.name} | span)
    colours = {finding: getattr(LIGHT, name) for finding, name in FINDING.items()}
    look = {"config": vega_config(LIGHT, 1) | {"background": LIGHT.card}, "padding": 10}
    return specification(differences_chart(rows, colours)) | look
