"""What a worker is told: which study, and how it works. It is plain, so that it reaches every machine."""

from __future__ import annotations

import math
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tombola.errors import TombolaError
from tombola.registry import imported
from tombola.studies.agenda import Agenda
from tombola.studies.executor import Engine, Serial
from tombola.studies.run_folder import Failure
from tombola.studies.store import Store
from tombola.studies.study_file import PLAN, StudyFile
from tombola.studies.trackers import Tracker
from tombola.studies.watchdog import Watchdog, Why
from tombola.studies.worker import Told, Worker
from tombola.training import Bars, Meter, chosen_device

TRACKERS = {
    "trackio": "tombola.integrations.trackio_tracker:Trackio",
    "tensorboard": "tombola.integrations.tensorboard_tracker:TensorBoard",
}
"""Trackers by name; each is made with the study's folder."""


@dataclass(frozen=True)
class WorkOrder:
    """How a worker works on a study.

    Args:
        study: the study's folder, with its plan.
        device: where networks train.
        threads: of the processor; as many as torch takes if None.
        limit: seconds that one run may take.
        until: the moment, in seconds since the epoch, at which work ends.
        trackers: names of trackers, or module:name.
        exact: use finished runs only if they were made under the same conditions.
        country: whose grid energy and carbon are estimated for; "" for no estimates.
        trust: import the code that the plan names.
        folder: where the worker works, so that it finds the user's modules.
        is_own_process: the worker's process is there for this work alone.
    """

    study: str
    device: str = "auto"
    threads: int | None = None
    limit: float = math.inf
    until: float = math.inf
    trackers: tuple[str, ...] = ()
    exact: bool = False
    country: str = ""
    trust: bool = False
    folder: str = ""
    is_own_process: bool = True

    def agenda(self, bars: Bars | None = None) -> Agenda:
        """What is to be done.

        Raises:
            TombolaError: there is no plan in the folder, or it names code and is not trusted.
        """
        root = Path(self.study)
        if not (root / PLAN).exists():
            raise TombolaError(
                f"{root} has no {PLAN}: its runs were not planned by a file, so only the program or command that began "
                f"them can go on; tombola study FILE --out {shlex.quote(str(root))} makes a plan"
            )
        plan = StudyFile.read(root / PLAN)
        if not self.trust and (code := plan.named_code()):
            raise TombolaError(
                f"the plan of {root} names {code[0]}, which would be imported or read; if you know it, say --trust"
            )
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        meter = Meter(self.country) if self.country else None
        executor = Serial(chosen_device(self.device), bars or Bars(), meter)
        return Agenda(plan.grids(), Engine(Store(root, exact=self.exact), executor))

    def worker(self, agenda: Agenda, told: Told = lambda run, outcome: None) -> Worker:
        """The worker that carries the agenda out."""
        trackers = tuple(tracker_named(name, Path(self.study)) for name in self.trackers)
        watchdog = Watchdog(Path(self.study), self.limit, self.until, self.is_own_process)
        return Worker(agenda, watchdog, trackers, told)

    def words(self) -> list[str]:
        """What to type to start such a worker."""
        words = ["tombola", "work", self.study, "--device", self.device]
        words += ["--threads", str(self.threads)] if self.threads is not None else []
        words += ["--run-limit", f"{self.limit:g}s"] if self.limit < math.inf else []
        words += ["--track", *self.trackers] if self.trackers else []
        words += ["--country", self.country] if self.country else []
        return words + ["--exact"] * self.exact + ["--trust"] * self.trust


@dataclass(frozen=True)
class Tally:
    """What one worker did.

    Args:
        done: runs and searches that it brought to their end.
        failed: those that it saw fail.
        why: why it ended before all was done; nothing if all is done.
    """

    done: int
    failed: int
    why: Why


def work_as_told(order: WorkOrder, number: int = 0) -> Tally:
    """Start a worker here and let it work until nothing is left.

    Args:
        order: what it works on, and how.
        number: of the worker among those that were started with it.
    """
    if order.folder and Path(order.folder).is_dir():
        os.chdir(order.folder)
    counts = {True: 0, False: 0}

    def told(run: Any, outcome: Any) -> None:
        counts[isinstance(outcome, Failure)] += 1

    why = order.worker(order.agenda(), told).work()
    return Tally(counts[False], counts[True], why)


def tracker_named(name: str, root: Path) -> Tracker:
    """A tracker by its name, or by module:name.

    Raises:
        TombolaError: there is none of that name, or its library is not installed.
    """
    if name not in TRACKERS and ":" not in name:
        raise TombolaError(f"there is no tracker '{name}'; give {', '.join(TRACKERS)}, or module:name of your own")
    return imported(TRACKERS.get(name, name), "the tracker")(root)
