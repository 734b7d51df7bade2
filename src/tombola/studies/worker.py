"""A worker of a study: it looks for work that nobody holds, carries it out, and looks again."""

from __future__ import annotations

import io
import os
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from tombola.errors import FileError, TombolaError
from tombola.files import InUse, LeaseLost, append, unwritable
from tombola.studies.agenda import Agenda
from tombola.studies.batch_training import Piece, train_together
from tombola.studies.execution import finish
from tombola.studies.prepared import Prepared, found
from tombola.studies.resources import TooLarge, check_memory
from tombola.studies.result import Result
from tombola.studies.run_folder import LOG, Failure, FailureKind
from tombola.studies.trackers import Tracker
from tombola.studies.watchdog import Ended, Watchdog, Why
from tombola.tickets import Ticket

IDLE = 0.5
"""Seconds between two looks for work where others hold all that is left."""
Outcome = Ticket | Result | Failure
Told = Callable[[Prepared, Outcome], None]
"""Is told of each run that this worker brought to its end."""


@dataclass(frozen=True)
class Worker:
    """Carries out what nobody else does, until nothing is left.

    Args:
        agenda: what is to be done.
        watchdog: ends work that takes too long, or that is to stop.
        trackers: are told of each run.
        told: is told of each run as well.
    """

    agenda: Agenda
    watchdog: Watchdog
    trackers: Sequence[Tracker] = ()
    told: Told = lambda run, outcome: None

    def work(self) -> Why:
        """Look for work, carry it out, and look again; a run that another process holds is passed over.

        Returns:
            Why work ended before all was done; nothing if all is done.
        """
        self.agenda.look_at_tasks()
        with self.watchdog.on_duty():
            while pieces := self.agenda.pieces():
                is_idle = True
                for piece in pieces:
                    while self.watchdog.is_paused() and not self.watchdog.why():
                        time.sleep(IDLE)
                    if why := self.watchdog.why():
                        return why
                    if all(map(self.agenda.outcome, piece.runs)):
                        continue
                    try:
                        is_idle &= not self._carry_out(piece)
                    except Ended as end:
                        return end.why
                if is_idle:
                    time.sleep(IDLE)
        return ""

    def _carry_out(self, piece: Piece) -> bool:
        """Carry out a piece and keep what fails in it; False if another process has a part of it."""
        alone = piece.alone
        try:
            if len(piece.runs) > 1:
                with self._kept_going(piece.runs):
                    alone = train_together(piece)
            for run in piece.runs:
                if self.agenda.outcome(run) is None:
                    with self._kept_going((run,)):
                        check_memory(run)
                        self._tell(run, finish(run, alone) if not run.is_search else found(run))
        except (InUse, LeaseLost):
            return False
        return True

    @contextmanager
    def _kept_going(self, runs: Sequence[Prepared]) -> Generator[None]:
        """Keep why runs fail, and what they say, in their folders; the rest of the study goes on."""
        started = time.monotonic()

        def fail(kind: FailureKind, reason: str) -> None:
            for run in runs:
                if self.agenda.outcome(run) is None:
                    failure = Failure(kind, reason, time.monotonic() - started)
                    log.say(f"failed after {failure.seconds:.1f} s: {reason}")
                    run.folder.fail(failure)
                    self._tell(run, failure)

        late = f"it took longer than its limit of {self.watchdog.limit:g} s"
        with _logged(runs[0].folder.path / LOG) as log:
            try:
                with self.watchdog.watching(lambda: fail("time", f"{late}, and its process had to be ended")):
                    yield
                seconds, threads = time.monotonic() - started, torch.get_num_threads()
                log.say(f"took {seconds:.1f} s, {threads} thread{'s' * (threads > 1)}")
            except Ended as end:
                if end.why != "limit":
                    raise
                fail("time", late)
            except (InUse, LeaseLost):
                raise
            except Exception as error:
                if isinstance(error, FileError) and isinstance(error.__cause__, OSError):
                    raise  # nothing can be written here: that says nothing of the run
                log.write(traceback.format_exc())
                fail("memory" if _is_of_memory(error) else "error", _in_a_line(error))

    def _tell(self, run: Prepared, outcome: Outcome) -> None:
        for tracker in self.trackers:
            track(tracker, run, outcome)
        self.told(run, outcome)


def track(tracker: Tracker, run: Prepared, outcome: Outcome) -> None:
    """Tell a tracker of a run that has ended."""
    if isinstance(outcome, Ticket):
        return
    tracker.begin(run.folder.path.name, run.settings)
    if isinstance(outcome, Failure):
        tracker.fail(outcome.reason)
        return
    for row in outcome.history:
        tracker.epoch(row)
    tracker.end(outcome)


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | TooLarge | torch.OutOfMemoryError) or "allocate memory" in str(error)


def _in_a_line(error: Exception) -> str:
    """The first line of an error; Tombola's own need no name before them."""
    first = next(iter(str(error).strip().splitlines()), "")
    return first if isinstance(error, TombolaError) else f"{type(error).__name__}: {first}"


class _Log(io.TextIOBase):
    """A run's log, which is there once something is said."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, text: str, /) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self._path, error, "nothing that was there is lost") from error
        append(self._path, text)
        return len(text)

    def say(self, words: str) -> None:
        """Add a line with the time and the process."""
        self.write(f"{datetime.now().isoformat(timespec='seconds')} process {os.getpid()}: {words}\n")


@contextmanager
def _logged(path: Path) -> Generator[_Log]:
    """Write what the block prints and warns of into a run's log."""
    log = _Log(path)
    with redirect_stdout(log), redirect_stderr(log), warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *_, **__: log.say(f"note: {message}")  # ty: ignore[invalid-assignment]
        yield log
