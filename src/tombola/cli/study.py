"""tombola study FILE: a grid of runs from a file, on this machine, on many, or on Ray."""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from tyro.conf import arg

from tombola.cli.compare import answer, show, written
from tombola.cli.console import console, print_json
from tombola.cli.output import refuse_foreign
from tombola.cli.parse import read, seconds_of
from tombola.cli.study_view import watched
from tombola.errors import FileError, TombolaError
from tombola.evidence import EachSeed
from tombola.files import content_of, write_atomically
from tombola.studies import (
    PAUSE,
    PLAN,
    STOP,
    TRACKERS,
    Agenda,
    Failure,
    Prepared,
    Processes,
    StudyFile,
    WorkOrder,
    check_direction,
    in_words_of_time,
    memory_needed,
    prices,
    work_as_told,
    workers_that_fit,
)
from tombola.terminal_table import Column, TerminalTable

FAILED_SOME = 3
"""The exit status where runs failed."""


@dataclass(frozen=True)
class StudyOptions:
    """Carry out the study of a file: every task with every recipe, method, density and seed.

    The runs are kept in the study's folder. A finished run is never repeated, and a killed one goes on, so the same
    command ends a study that was stopped. `tombola work FOLDER` starts further workers, here or on other machines.
    """

    file: tyro.conf.Positional[Path]
    """study file (TOML), or the folder of a study"""
    out: Path | None = None
    """folder of the runs and the report; runs/NAME if not given"""
    workers: int = 1
    """number of runs at once: processes with one thread each, or one for each GPU; 0 only writes the plan"""
    ray: str = ""
    """work on a Ray cluster: auto, or its address (pip install 'tombola[ray]')"""
    slurm: Literal["", "print", "submit", "local"] = ""
    """work as an array of SLURM jobs: print its script, or submit it, or try it here (pip install 'tombola[slurm]')"""
    dry_run: bool = False
    """list the runs and what they will cost, and do nothing"""
    limit_hours: float = math.inf
    """hours after which all work ends; the same command goes on"""
    run_limit: str = "none"
    """time that one run may take, as 30min or 2h; a run that takes longer is recorded as failed"""
    retry: Literal["", "failed"] = ""
    """failed: try again what failed"""
    pause: bool = False
    """let the study's workers begin nothing new, until the study is started again; and return"""
    stop: bool = False
    """let the study's workers end at once, keeping what they have; and return"""
    track: Annotated[tuple[str, ...], arg(help=f"trackers of runs: {', '.join(TRACKERS)}, or module:name")] = ()
    device: str = "auto"
    """where to compute: auto (CUDA if there is one), cpu, cuda, cuda:1, …"""
    threads: int | None = None
    """threads of a single worker; as many as there are cores if not given"""
    json: bool = False
    """print one line of JSON and nothing else, for programs"""
    fresh: bool = False
    """repeat finished runs instead of reading their results"""
    exact: bool = False
    """read a finished run only if its threads and device were those of this run; else repeat it and keep both"""
    trust: bool = False
    """with a folder: import the code that its plan names; only for studies of people you trust"""
    country: str = ""
    """your country's ISO code, such as DEU: estimates energy and CO₂e from its grid (pip install 'tombola[energy]')"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    options = read(StudyOptions, "study", words)
    if options.workers < 0:
        raise TombolaError(f"workers is {options.workers}; give at least 1, or 0 to write the plan alone")
    root = _folder(options)
    if options.pause or options.stop:
        return _order(root, options)
    order = _work_order(options, root)
    _plan(options, root)
    agenda = order.agenda()
    for grid in agenda.grids:
        check_direction(grid.plan.task, grid.plan.measure)
    for number in range(len(agenda.grids)):
        refuse_foreign(_place(root, number, agenda))
    agenda.look_at_tasks()
    if options.dry_run:
        return _price(agenda, options)
    if options.fresh:
        for prepared in agenda.known_if_finished():
            prepared.folder.renew()
        agenda = order.agenda()
    tried_again = agenda.retry() if options.retry else 0
    if options.workers == 0 or options.slurm:
        return _hand_over(options, order, agenda)
    why = _carry_out(options, order, agenda)
    return _tell(order.agenda(), options, root, why, tried_again, shlex.join(["tombola", "study", *words]))


def _place(root: Path, number: int, agenda: Agenda) -> Path:
    """Where the report of one of a study's grids is written."""
    return root if len(agenda.grids) == 1 else root / f"report-{number + 1}"


def _folder(options: StudyOptions) -> Path:
    if options.file.is_dir():
        return options.file
    return options.out or Path("runs") / options.file.stem


def _order(root: Path, options: StudyOptions) -> int:
    """Leave a word for the study's workers."""
    if not (root / PLAN).exists():
        raise TombolaError(f"{root} holds no study; give its file, and --out if its folder is another one")
    write_atomically(root / (STOP if options.stop else PAUSE), "")
    said = "end at once" if options.stop else "begin nothing new"
    if options.json:
        print_json({"study": str(root), "told": said})
    else:
        print(f"The workers of {root} {said}; start the study again, and it goes on.")
    return 0


def _work_order(options: StudyOptions, root: Path) -> WorkOrder:
    several = options.workers > 1 or options.ray or options.slurm or options.workers == 0
    return WorkOrder(
        str(root.absolute()),
        options.device,
        1 if several else options.threads,
        seconds_of(options.run_limit),
        time.time() + 3600 * options.limit_hours,
        options.track,
        options.exact,
        options.country,
        trust=options.trust or not options.file.is_dir(),  # who types the file's name vouches for it
        folder=os.getcwd(),
        is_own_process=bool(several),
    )


def _plan(options: StudyOptions, root: Path) -> None:
    """Keep the file as the folder's plan, once it is known to be one, and let the workers work."""
    refuse_foreign(root)
    if not options.file.is_dir():
        StudyFile.read(options.file)
        plan, kept = content_of(options.file), root / PLAN
        earlier = content_of(kept) if os.path.exists(kept) else plan
        if earlier != plan:
            StudyFile.read(kept)  # or it is no plan of ours
            if not options.dry_run:
                write_atomically(root / f"study-{blake2b(earlier, digest_size=4).hexdigest()}.toml", earlier)
        if not os.path.exists(kept) or (earlier != plan and not options.dry_run):
            write_atomically(kept, plan)
    if not options.dry_run:
        for order in (root / STOP, root / PAUSE):
            if order.exists():
                order.unlink()


def _carry_out(options: StudyOptions, order: WorkOrder, agenda: Agenda) -> str:
    """Let workers work until nothing is left; gives why they ended before that."""
    if options.workers == 1 and not options.ray:
        with watched(agenda, not options.json, looks=False):
            return order.worker(agenda).work()
    executor = _executor(options, agenda)
    workers = executor.workers
    with watched(agenda, not options.json, looks=True):
        tallies = [tally for _, tally in executor.map(work_as_told, [order] * workers, range(workers))]
    return next((tally.why for tally in tallies if tally.why), "")


def _executor(options: StudyOptions, agenda: Agenda) -> Any:
    if options.ray:
        from tombola.integrations.ray_cluster import RayCluster

        try:
            return RayCluster(options.ray, options.workers if options.workers > 1 else None, options.device)
        except ImportError as error:
            raise TombolaError("--ray needs Ray; install it with pip install 'tombola[ray]'") from error
    needed = max((memory_needed(run) for run in agenda.known()), default=1)
    device = agenda.engine.executor.device
    fit = workers_that_fit(options.workers, needed, device)
    if fit < options.workers:
        print(
            f"tombola: note: {options.workers} workers need {options.workers * needed / 2**30:.1f} GiB of memory; "
            f"there is room for {fit}",
            file=sys.stderr,
        )
    return Processes(fit, device)


def _hand_over(options: StudyOptions, order: WorkOrder, agenda: Agenda) -> int:
    """Say how workers are started, or submit them."""
    order = replace(order, is_own_process=True)
    left = len(agenda.pieces())
    told: dict[str, Any] = {"study": order.study, "pieces": left, "command": shlex.join(order.words())}
    if options.slurm:
        try:
            from tombola.integrations.slurm_jobs import slurm_array
        except ImportError as error:
            raise TombolaError("--slurm needs submitit; install it with pip install 'tombola[slurm]'") from error
        told |= slurm_array(order, max(1, options.workers), options.slurm)
    if options.json:
        print_json(told)
        return 0
    if "script" in told:
        print(told["script"])
    elif "jobs" in told:
        print(f"Submitted: {', '.join(told['jobs'])}. When they have ended: tombola study {shlex.quote(order.study)}")
    else:
        print(f"{left} pieces of work are planned. Start as many workers as you like:\n{told['command']}")
    return 0


def _price(agenda: Agenda, options: StudyOptions) -> int:
    """List the parts of a study and what they cost."""
    agenda.pieces()
    parts = prices(agenda)
    hours = [part.hours for part in parts if part.left]
    known = sum(own for own in hours if own is not None)
    workers = max(1, options.workers)
    if options.json:
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
    unknown = f"; no earlier run shows what {hours.count(None)} of the parts take" if None in hours else ""
    terminal.print(
        f"{agenda.expected()} runs and searches, about {in_words_of_time(3600 * known / workers)} left on {workers} "
        f"worker{'s' * (workers > 1)}{unknown}{_open_end(agenda)}. Nothing was started."
    )
    return 0


def _open_end(agenda: Agenda) -> str:
    """What a price leaves out where seeds run until it is decided."""
    most = max((len(grid.seeds) for grid in agenda.grids if isinstance(grid.plan.looks, EachSeed)), default=0)
    return f"; each verdict that is then open takes further seeds, up to {most}" if most else ""


def _tell(agenda: Agenda, options: StudyOptions, root: Path, why: str, tried_again: int, command: str) -> int:
    """Print what the study came to, and write its reports."""
    left, failures = len(agenda.pieces()), agenda.failures()
    title = StudyFile.read(root / PLAN).title or root.name
    answers: list[dict[str, Any]] = []
    unwritten: FileError | None = None
    for number, study in enumerate(agenda.studies()):
        labels = dict(getattr(agenda.grids[number].plan.task, "labels", {}))
        own = _place(root, number, agenda)
        if study.verdicts and not left:
            heading = title if len(agenda.grids) == 1 else f"{title}: {' '.join(labels.values())}"
            page = None
            try:
                study, page = written(study, own, heading, command, labels)
            except FileError as error:  # as on a disk that can only be read: what was measured is told all the same
                unwritten = unwritten or error
            answers.append(answer(study, page))
            if not options.json:
                print(f"\n{heading}")
                show(study, page)
    if options.json:
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
        table = Table("run", "why", "reason", "after", box=SIMPLE_HEAD, title=f"{len(failures)} failed")
        for run, own in failures:
            table.add_row(Text(run.folder.path.name), own.kind, Text(own.reason), in_words_of_time(own.seconds))
        terminal.print(table)
        terminal.print("The log of each lies in its folder; --retry failed tries them again.")
    if left:
        reason = {"time": "The time is up", "stop": "The study was told to stop"}.get(why, "Work ended")
        terminal.print(f"{reason}: {left} pieces of work are left. The same command goes on.")
    terminal.print(f"Runs: tombola results {shlex.quote(str(root))}")
