"""tombola compare METHOD…: methods against each other, dense and their controls."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tombola.cli.console import console, print_json
from tombola.cli.output import RunOptions, engine, verdicts_json
from tombola.cli.parse import parse
from tombola.cli.subjects import at_size, first_words, method_named
from tombola.errors import TombolaError
from tombola.evidence import MANDATORY, MARGIN
from tombola.methods import Method, blocks_removed
from tombola.report import (
    GatheredArms,
    estimate,
    results_table_for,
    robustness_rows,
    robustness_table,
    sanity_table,
    savings_table,
    write_report,
)
from tombola.studies import Study, TaskOptions, compare, default_options, make_task


@dataclass(frozen=True)
class CompareOptions:
    """Search with each method at each density and seed, train tickets, dense and controls, and report."""

    densities: tuple[float, ...] = (0.2, 0.05)
    """shares of weights to keep"""
    remove: tuple[int, ...] = (1,)
    """for methods that remove whole blocks: how many"""
    seeds: int = 3
    """how many seeds, each with its own search"""
    controls: tuple[str, ...] = MANDATORY
    """what each ticket must beat"""
    margin: float = MARGIN
    """the difference in accuracy that counts as none"""
    out: Path = Path("runs/compare")
    """the folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
    names, rest = first_words(words)
    if not names and rest[:1] != ["--help"] and rest[:1] != ["-h"]:
        raise TombolaError("say which methods: tombola compare METHOD…, as tombola compare imp snip random")
    options = parse(
        "compare", rest, CompareOptions.__doc__, compare=CompareOptions(), task=default_options(rest), run=RunOptions()
    )
    own = options.compare
    methods = [method for name in names for method in at_sizes(method_named(name), own.densities, own.remove)]
    command = shlex.join(["tombola", "compare", *words])
    return study(own, methods, options.task, options.run, f"{', '.join(names)} on {options.task.data}", command)


def at_sizes(method: Method, densities: Sequence[float], remove: Sequence[int]) -> list[Method]:
    """The method at each density, or where it counts blocks with each number of them removed."""
    if blocks_removed(method) is not None:
        return [at_size(method, None, count) for count in remove]
    return [at_size(method, density, None) for density in densities]


def study(
    own: CompareOptions,
    subjects: Sequence[Method],
    task_options: TaskOptions,
    run_options: RunOptions,
    title: str,
    command: str,
) -> int:
    """Carry out a comparison, write its report, print its table."""
    task = make_task(task_options)
    with engine(run_options, own.out) as running:
        done = compare(task, subjects, seeds=own.seeds, controls=own.controls, margin=own.margin, engine=running)
    return publish(done, own.out, title, command, dict(task.labels), run_options.json)


def publish(
    done: Study,
    out: Path,
    title: str,
    command: str,
    labels: dict[str, str],
    as_json: bool,
    more: Mapping[str, Any] = {},
) -> int:
    """Save a study, write its report, and print its table and verdicts, or one line of JSON.

    more: what else the line tells.
    """
    done = replace(done, title=title, command=command, task=labels)
    done.save(out)
    page = write_report(done.results, done.verdicts, out, title=title, command=command, task=labels, checks=done.sanity)
    gathered = GatheredArms.of(done.results, done.verdicts, done.sanity)
    robust = robustness_rows(gathered)
    if as_json:
        found = {
            "report": str(page),
            "runs": len(done.results),
            "verdicts": verdicts_json(done),
            "savings": [asdict(own) for own in gathered.saved],
        }
        found |= {"robustness": [own.to_json() for own in robust]} if robust else {}
        print_json({**more, **found} | ({"sanity": [own.to_json() for own in done.sanity]} if done.sanity else {}))
        return 0
    to = console()
    to.print(results_table_for(done.results, done.verdicts))
    to.print(savings_table(gathered))
    if gathered.countries:
        to.print(f"{estimate(gathered)}\n")
    for verdict in done.verdicts:
        to.print(verdict.sentence if len(done.verdicts) == 1 else verdict.summary)
    if robust:
        to.print(robustness_table(gathered))
        for own in robust:
            to.print(own.summary)
    if done.sanity:
        to.print(sanity_table(gathered))
        for own in done.sanity:
            to.print(f"{own.summary}.")
    to.print(f"\nReport: {page}")
    return 0
