"""tombola compare METHOD…: compare methods with each other, with dense and with controls."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tombola.cli.console import console, print_json
from tombola.cli.deciding import DecidingOptions
from tombola.cli.output import RunOptions, engine, verdicts_json
from tombola.cli.parse import parse
from tombola.cli.subjects import first_words
from tombola.cli.targets import TargetOptions
from tombola.errors import TombolaError
from tombola.evidence import MANDATORY
from tombola.methods import Method
from tombola.report import (
    GatheredArms,
    advice,
    estimate,
    headline,
    ranking_table,
    results_table_for,
    robustness_rows,
    robustness_table,
    sanity_table,
    saves,
    savings_table,
    too_brief,
    write_report,
)
from tombola.studies import Section, Study, TaskOptions, at_sizes, compare, default_options, make_task, method_named
from tombola.terminal_table import Column, TerminalTable


@dataclass(frozen=True)
class CompareOptions:
    """Compare methods with each other, with the dense network and with controls.

    For each method, density and seed, the command searches for a ticket (a part of the network's weights, with their
    starting values). It trains the tickets, the whole network ("dense") and the controls, which are tickets of the
    same size that should not win. Then it writes a report that says which tickets win.
    """

    densities: tuple[float, ...] = (0.2, 0.05)
    """densities to compare: the shares of units (weights, unless a method removes channels) to keep"""
    remove: tuple[int, ...] = (1,)
    """numbers of blocks to remove, for methods that remove whole blocks"""
    seeds: int | None = None
    """number of repetitions, each with its own randomness and search; 3 if not given"""
    controls: tuple[str, ...] = MANDATORY
    """controls that each ticket must beat; `tombola methods controls` explains them"""
    margin: float | None = None
    """difference in the metric that is too small to matter, in its own unit; if not given, 0.005 of a share such as
    accuracy (half a point), and for other metrics the spread of the dense network's over its seeds"""
    equal_cost: bool = False
    """rank the methods at equal cost, too: cheaper ones, and dense, then train longer, until all have cost the same"""
    out: Path = Path("runs/compare")
    """folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    names, rest = first_words(words)
    if not names and rest[:1] != ["--help"] and rest[:1] != ["-h"]:
        raise TombolaError("name the methods: tombola compare METHOD…, as tombola compare imp snip random")
    options = parse(
        "compare METHOD…",
        rest,
        CompareOptions.__doc__,
        compare=CompareOptions(),
        task=default_options(rest),
        target=TargetOptions(),
        deciding=DecidingOptions(),
        run=RunOptions(),
    )
    sizes, targets = options.compare, options.target.arguments()
    options.target.check(rest, "--densities", "--remove")
    if targets.keys() & {"flops", "parameters", "speedup", "latency"}:  # each method once: the density is solved for
        sizes = replace(sizes, densities=sizes.densities[:1], remove=sizes.remove[:1])
    methods = [method for name in names for method in at_sizes(method_named(name), sizes.densities, sizes.remove)]
    title, command = f"{', '.join(names)} on {options.task.data}", shlex.join(["tombola", "compare", *words])
    return run_comparison(sizes, methods, options.task, options.deciding, options.run, title, command, targets=targets)


def run_comparison(
    options: CompareOptions,
    methods: Sequence[Method],
    task_options: TaskOptions,
    deciding: DecidingOptions,
    run_options: RunOptions,
    title: str,
    command: str,
    *,
    usual: int = 3,
    targets: Mapping[str, Any] = {},
) -> int:
    """Carry out a comparison, write its report and print its table.

    Args:
        options: seeds, controls, margin and the folder.
        methods: what is compared, at the sizes of its tickets.
        task_options: the data, the network and the recipe.
        deciding: when a verdict is decided, and by what.
        run_options: the device, and which finished runs are read.
        title: the report's title.
        command: the command line that repeats the comparison, shown in the report.
        usual: the number of seeds where none is typed.
        targets: what the smaller networks shall be, in place of densities.

    Returns:
        The exit status.
    """
    task = make_task(task_options)
    with engine(run_options, options.out) as runner:
        study = compare(
            task,
            methods,
            controls=options.controls,
            margin=options.margin,
            equal_cost=options.equal_cost,
            engine=runner,
            **deciding.arguments(options.seeds, usual),
            **targets,
        )
    return publish(study, options.out, title, command, dict(task.labels), run_options.json)


def publish(
    study: Study,
    out: Path,
    title: str,
    command: str,
    labels: dict[str, str],
    as_json: bool,
    more: Mapping[str, Any] = {},
) -> int:
    """Save a study, write its report, and print its tables and verdicts.

    Args:
        study: what was measured.
        out: the folder of the study and its report.
        title: the report's title.
        command: the command line that repeats the study.
        labels: what describes the task in the report, by name.
        as_json: print one line of JSON instead of the tables.
        more: further entries of that line.

    Returns:
        The exit status.
    """
    page = None
    try:
        study, page = written(study, out, title, command, labels)
    finally:  # what was measured is told, also where no report can be written
        if as_json:
            print_json({**more, **answer(study, page)})
        else:
            show(study, page)
    return 0


def written(study: Study, out: Path, title: str, command: str, labels: dict[str, str]) -> tuple[Study, Path]:
    """Save a study and write its report; gives both. The arguments are those of `publish`."""
    study = replace(study, title=title, command=command, task=labels)
    study.save(out)
    page = write_report(
        study.results,
        study.verdicts,
        out,
        title=title,
        command=command,
        task=labels,
        checks=study.sanity,
        rankings=study.rankings,
        sections=study.sections,
    )
    return study, page


def answer(study: Study, page: Path | None) -> dict[str, Any]:
    """What programs are told of a study, whose page may not have been written."""
    gathered = GatheredArms.of(study.results, study.verdicts, study.sanity, study.rankings)
    robustness = robustness_rows(gathered)
    told = {
        "report": str(page) if page else None,
        "runs": len(study.results),
        "verdicts": verdicts_json(study),
        "savings": [asdict(savings) for savings in gathered.saved],
    }
    rankings = [asdict(own) | {"summary": own.summary} for own in study.rankings]
    told |= {"rankings": rankings} if rankings else {}
    told |= {own.key: [dict(zip(own.head, row, strict=True)) for row in own.rows] for own in targets_of(study)}
    told |= {"robustness": [row.to_json() for row in robustness]} if robustness else {}
    return told | ({"sanity": [sanity.to_json() for sanity in study.sanity]} if study.sanity else {})


def targets_of(study: Study) -> list[Section]:
    """The section on what was asked for, counted and measured, if there were targets."""
    return [own for own in study.sections if own.key == "targets"]


def show(study: Study, page: Path | None) -> None:
    """Print a study's tables and verdicts, and where its page is if there is one."""
    gathered = GatheredArms.of(study.results, study.verdicts, study.sanity, study.rankings)
    robustness = robustness_rows(gathered)
    terminal = console()
    terminal.print(results_table_for(study.results, study.verdicts))
    if saves(gathered):
        terminal.print(savings_table(gathered))
    if gathered.countries:
        terminal.print(f"{estimate(gathered)}\n")
    if study.rankings:
        terminal.print(ranking_table(study.rankings))
        for ranking in study.rankings:
            terminal.print(f"{ranking.summary}.")
        terminal.print()
    for verdict in study.verdicts:
        terminal.print(str(verdict) if len(study.verdicts) == 1 else verdict.summary)
    if robustness:
        terminal.print(robustness_table(gathered))
        for row in robustness:
            terminal.print(row.summary)
    for own in targets_of(study):
        first, *others = own.head
        table = TerminalTable(
            (Column(first, left=True, least=16), *(Column(head, drop=place) for place, head in enumerate(others))),
            title=own.title,
        )
        for row in own.rows:
            table.add(*row)
        terminal.print(table)
    if study.sanity:
        terminal.print(sanity_table(gathered))
        for sanity in study.sanity:
            terminal.print(f"{sanity.summary}.")
    if len(study.verdicts) > 1:
        terminal.print("\n" + "\n".join(headline(gathered)))
    if brief := " ".join(filter(None, [too_brief(gathered), advice(gathered)])):
        terminal.print(f"\n{brief}")
    if page:
        terminal.print(f"\nReport: {page}")
