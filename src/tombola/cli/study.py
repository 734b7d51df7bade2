"""tombola study FILE: a grid of runs from a file, on this machine, on many, or on Ray."""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import arg

from tombola.cli.console import print_json
from tombola.cli.output import refuse_foreign
from tombola.cli.parse import read, seconds_of
from tombola.cli.study_output import place_of, price, tell
from tombola.cli.study_view import watched
from tombola.errors import TombolaError
from tombola.files import content_of, write_atomically
from tombola.studies import (
    PAUSE,
    PLAN,
    STOP,
    TRACKERS,
    Agenda,
    Processes,
    StudyFile,
    WorkOrder,
    check_direction,
    memory_needed,
    work_as_told,
    workers_that_fit,
)


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
        refuse_foreign(place_of(root, number, agenda))
    agenda.look_at_tasks()
    if options.dry_run:
        return price(agenda, max(1, options.workers), options.json)
    if options.fresh:
        for prepared in agenda.known_if_finished():
            prepared.folder.renew()
        agenda = order.agenda()
    tried_again = agenda.retry() if options.retry else 0
    if options.workers == 0 or options.slurm:
        return _hand_over(options, order, agenda)
    why = _carry_out(options, order, agenda)
    return tell(order.agenda(), root, why, tried_again, shlex.join(["tombola", "study", *words]), options.json)


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
