"""A claim's page: what the paper states, what we ran, what came out; as Markdown, a chart and a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import vl_convert
from rich.box import SIMPLE_HEAD
from rich.table import Table

from tombola.evidence import interval
from tombola.files import write_atomically
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
    """Each expectation with the difference of its arms, its interval and what it comes to."""
    drawn = Table(title=claim.title, box=SIMPLE_HEAD, header_style="bold")
    for heading in ("expected", "difference", "95 % interval", "p (Holm)", "finding"):
        drawn.add_column(heading)
    for row, finding in zip(_rows(report), report.findings, strict=True):
        drawn.add_row(*row[:-1], f"[{STYLES[finding]}]{finding}[/]")
    return drawn


def write_claim(claim: Claim, level: Level, report: ClaimReport, folder: Path) -> Path:
    """Write ID.md and its chart ID.svg into a folder; returns the page's path."""
    page = folder / f"{claim.id}.md"
    write_atomically(page, claim_page(claim, level, report))
    write_atomically(page.with_suffix(".svg"), vl_convert.vegalite_to_svg(_chart(report), vl_version="6.4"))
    return page


def claim_page(claim: Claim, level: Level, report: ClaimReport) -> str:
    """The page as Markdown."""
    protocol = claim.protocols[level]
    rows = "\n".join(f"| {' | '.join(row)} |" for row in _rows(report))
    command = f"tombola claims {claim.id}" + ("" if level == "standard" else f" --{level}")
    ran, arms = (_measured if isinstance(protocol, Measurement) else _trained)(claim, protocol, report, command)
    return f"""# {claim.title}

**{report.sentence.capitalize()}.**

> {claim.statement}

{claim.source}.

## What was run

{ran}

## What came out

![Differences between the arms, with 95 % intervals]({claim.id}.svg)

| expected | difference | 95 % interval | p (Holm) | finding |
| --- | --- | --- | --- | --- |
{rows}

{arms}
"""


def _trained(claim: Claim, protocol: Any, report: ClaimReport, command: str) -> tuple[str, str]:
    """What was run of a protocol that trains arms, and the table of what they came to."""
    own = {name: [one for one in arm if isinstance(one, Result)] for name, arm in report.arms.items()}
    results = list({result.digest: result for arm in own.values() for result in arm}.values())
    first = results[0]
    arms = "\n".join(_arm_row(name, arm, report.units[name]) for name, arm in own.items())
    ran = f"""{counted(len(results), "run")}: {counted(len(own), "arm")} over {counted(protocol.seeds, "seed")}, on
{protocol.task.data} with {protocol.task.model}; `{command}`.

- Recipe: {_recipe(protocol.task.recipe)}; {first.settings["precision"]} on {first.settings["device"]},
  {counted(first.settings["threads"], "thread")}.
- Otherwise than in the paper: {claim.differs}
- Time: {_time(results)} of searching and training, beside other work on the same machine.
- Made by {_sources(results)}."""
    return (
        ran,
        f"""Differences are paired over seeds; of test accuracy, where an arm's name says nothing else. *A > B* holds if
A is better; *A ≥ B* holds if the 90 % interval of A − B lies above −{_margins(report)}. The test split is
read once, after training.

| arm | density | mean (95 % interval) | each seed | search |
| --- | --- | --- | --- | --- |
{arms}""",
    )


def _measured(claim: Claim, protocol: Any, report: ClaimReport, command: str) -> tuple[str, str]:
    """The same of a protocol that gives figures."""
    own = {name: [one for one in arm if isinstance(one, MeasuredFigure)] for name, arm in report.arms.items()}
    taken = [figure.taken for figure in next(iter(own.values()))]
    first = taken[0].settings
    arms = "\n".join(
        f"| {name} | {mean} | {each} |"
        for name, arm in own.items()
        for mean, each in [_figures(arm, report.units[name])]
    )
    ran = f"""{counted(len(own), "figure")} over {counted(protocol.seeds, "seed")}; `{command}`.

- {protocol.ran}
- On {first["device"]}, {counted(first["threads"], "thread")}.
- Otherwise than in the paper: {claim.differs}
- Time: {_minutes(sum(seed.seconds for seed in taken))}, beside other work on the same machine.
- Made by {_sources(taken)}."""
    return (
        ran,
        f"""Differences are paired over seeds. *A > B* holds if A is larger; *A ≥ B* holds if the 90 % interval of A − B
lies above −{_margins(report)}.

| figure | mean (95 % interval) | each seed |
| --- | --- | --- |
{arms}""",
    )


def _rows(report: ClaimReport) -> list[list[str]]:
    return [
        [
            str(expected),
            f"{points(unit.scale * own.mean)} {unit.name}",
            f"{points(unit.scale * own.low)} … {points(unit.scale * own.high)}",
            probability(own),
            finding,
        ]
        for expected, own, finding in zip(report.expected, report.comparisons, report.findings, strict=True)
        for unit in [report.units[expected.left]]
    ]


def _margins(report: ClaimReport) -> str:
    found = {
        f"{own.margin * unit.scale:g} {unit.name}"
        for expected, own in zip(report.expected, report.comparisons, strict=True)
        if expected.relation == "≥"
        for unit in [report.units[expected.left]]
    }
    return " or ".join(sorted(found or {f"{POINTS.margin * POINTS.scale:g} {POINTS.name}"}))


def _arm_row(name: str, results: Sequence[Result], unit: Unit) -> str:
    mean, each = _figures(results, unit)
    rate = f", lr {results[0].settings['lr']:g}" if results[0].settings.get("lr") else ""
    seconds = [result.search["seconds"] for result in results if "seconds" in result.search]
    search = f"{median(seconds):.3g} s" if seconds else ""
    return f"| {name}{rate} | {results[0].weight_density:.2%} | {mean} | {each} | {search} |"


def _figures(arm: Sequence[Result] | Sequence[MeasuredFigure], unit: Unit) -> tuple[str, str]:
    """The mean of an arm with its interval, and what each seed came to."""
    mean, low, high = (unit.scale * value for value in interval([own.metric for own in arm]))
    each = ", ".join(f"{unit.scale * own.metric:.2f}" for own in arm)
    return f"{mean:.2f} {unit.sign} ({low:.2f} … {high:.2f})", each


def _recipe(recipe: Recipe) -> str:
    named = ("epochs", "batch", "optimizer", "lr", "schedule", "weight_decay", "augment")
    return ", ".join(f"{name.replace('_', ' ')} {getattr(recipe, name) or 'none'}" for name in named)


def _time(results: Sequence[Result]) -> str:
    searches = {(r.settings["seed"], json.dumps(r.settings["subject"])): r.search.get("seconds", 0.0) for r in results}
    return _minutes(sum(searches.values()) + sum(result.training["seconds"] for result in results))


def _minutes(seconds: float) -> str:
    return counted(round(seconds / 60), "minute") if seconds >= 60 else "less than a minute"


def _sources(results: Sequence[Result] | Sequence[MeasuredRow]) -> str:
    made = sorted({result.source for result in results})
    return f"source{'s' * (len(made) > 1)} {', '.join(made)}"


def _chart(report: ClaimReport) -> dict[str, Any]:
    rows = []
    for expected, own, finding in zip(report.expected, report.comparisons, report.findings, strict=True):
        unit = report.units[expected.left]
        ends = {name: unit.scale * getattr(own, name) for name in ("mean", "low", "high")}
        rows.append({"expected": str(expected), "finding": finding, "unit": unit.name} | ends)
    colours = {finding: getattr(LIGHT, name) for finding, name in FINDING.items()}
    look = {"config": vega_config(LIGHT, 1) | {"background": LIGHT.card}, "padding": 10}
    return specification(differences_chart(rows, colours)) | look
