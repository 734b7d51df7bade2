"""What `tombola study` says: what a study will cost, and what it came to."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.text import Text

from tombola.cli.compare import answer, show, written
from tombola.cli.console import console, print_json
from tombola.errors import FileError
from tombola.evidence import EachSeed
from tombola.studies import PLAN, Agenda, Failure, Prepared, StudyFile, prices, task_title
from tombola.terminal_table import Column, TerminalTable
from tombola.training import in_words_of_time

FAILED_SOME = 3
"""The exit status where runs failed."""


def place_of(root: Path, number: int, agenda: Agenda) -> Path:
    """Where the report of one of a study's grids is written."""
    return root if len(agenda.grids) == 1 else root / f"report-{number + 1}"


def price(agenda: Agenda, workers: int, as_json: bool) -> int:
    """List the parts of a study and what they cost; returns the exit status.

    Args:
        agenda: the study.
        workers: how many share the work.
        as_json: print one line of JSON and nothing else.
    """
    agenda.pieces()
    parts = prices(agenda)
    hours = [part.hours for part in parts if part.left]
    known = sum(own for own in hours if own is not None)
    if as_json:
        rows = [{**vars(part), "hours": part.hours} for part in parts]
        print_json({"parts": rows, "hours": known, "unknown": hours.count(None), "runs": agenda.expected()})
        return 0
    figures = (
        Column("left"),
        Column("hours"),
        Column("runs", drop=1),
        Column("epochs", drop=2),
        Column("FLOPs", drop=3),
    )
    table = TerminalTable((Column("part", left=True, least=16), Column("task", drop=4, left=True, least=16), *figures))
    for part in parts:
        epochs = part.words if part.epochs is None else f"{part.epochs:.4g}"
        flops, time_left = ("" if value is None else f"{value:.3g}" for value in (part.flops, part.hours))
        table.add(Text(part.what), Text(part.task), str(part.left), time_left, str(part.runs), epochs, flops)
    terminal = console()
    terminal.print(table)
    left = f"about {in_words_of_time(3600 * known / workers)} left on {workers} worker{'s' * (workers > 1)}"
    unknown = f"no earlier run shows what {hours.count(None)} of the parts take"
    time = f"{left}; {unknown}" if known and None in hours else unknown if None in hours else left
    terminal.print(f"{agenda.expected()} runs and searches, {time}{_open_end(agenda)}. Nothing was started.")
    return 0


def _open_end(agenda: Agenda) -> str:
    """What a price leaves out where seeds run until it is decided."""
    most = max((len(grid.seeds) for grid in agenda.grids if isinstance(grid.plan.looks, EachSeed)), default=0)
    return f"; each verdict that is then open takes further seeds, up to {most}" if most else ""


def tell(agenda: Agenda, root: Path, why: str, tried_again: int, command: str, as_json: bool) -> int:
    """Print what the study came to, and write its reports; returns the exit status.

    Args:
        agenda: the study.
        root: its folder.
        why: why work ended before all was done.
        tried_again: how many failed runs were tried again.
        command: that makes the study.
        as_json: print one line of JSON and nothing else.
    """
    left, failures = len(agenda.pieces()), agenda.failures()
    title = StudyFile.read(root / PLAN).title or root.name
    answers: list[dict[str, Any]] = []
    unwritten: FileError | None = None
    for number, study in enumerate(agenda.studies()):
        labels = dict(getattr(agenda.grids[number].plan.task, "labels", {}))
        own = place_of(root, number, agenda)
        if study.verdicts and not left:
            heading = title if len(agenda.grids) == 1 else f"{title}: {task_title(labels)}"
            page = None
            try:
                study, page = written(study, own, heading, command, labels)
            except FileError as error:  # as on a disk that can only be read: what was measured is told all the same
                unwritten = unwritten or error
            answers.append(answer(study, page))
            if not as_json:
                print(f"\n{heading}")
                show(study, page)
    if as_json:
        print_json(
            {
                "study": str(root),
                "left": left,
                "why": why,
                "failed": [{"run": run.folder.path.name, **asdict(own)} for run, own in failures],
                "retried": tried_again,
                "reports": answers,
            }
        )
    else:
        _tell_what_is_left(root, left, why, failures)
    if unwritten:
        raise unwritten
    return FAILED_SOME if failures else 0


def _tell_what_is_left(root: Path, left: int, why: str, failures: Sequence[tuple[Prepared, Failure]]) -> None:
    terminal = console()
    if failures:
        columns = (
            Column("run", left=True, least=16),
            Column("why", left=True),
            Column("reason", left=True, least=24),
            Column("after", drop=1),
        )
        table = TerminalTable(columns, title=f"{len(failures)} failed")
        for run, own in failures:
            table.add(Text(run.folder.path.name), own.kind, Text(own.reason), in_words_of_time(own.seconds))
        terminal.print(table)
        terminal.print("The log of each lies in its folder; --retry failed tries them again.")
    if left:
        reason = {"time": "The time is up", "stop": "The study was told to stop"}.get(why, "Work ended")
        terminal.print(f"{reason}: {left} pieces of work are left. The same command goes on.")
    terminal.print(f"Runs: tombola results {shlex.quote(str(root))}")
