"""How far a study is, as its folder shows: what is done, what failed, and who is at work."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tombola.files import printable_text
from tombola.files.lease import HOLDER, said_by
from tombola.studies.prepared import Prepared
from tombola.studies.run_folder import FAILED, RunFolder
from tombola.training import in_words_of_time


@dataclass(frozen=True)
class AtWork:
    """A run that somebody holds.

    Args:
        run: the name of its folder.
        who: process and host.
        seconds: for how long.
    """

    run: str
    who: str
    seconds: float


@dataclass(frozen=True)
class Progress:
    """How far a study is.

    Args:
        done: runs and searches that ended.
        failed: those that failed.
        expected: how many there will be.
        at_work: those that somebody holds.
    """

    done: int
    failed: int
    expected: int
    at_work: tuple[AtWork, ...]

    @property
    def left(self) -> int:
        return max(0, self.expected - self.done - self.failed)

    def sentence(self, seconds: float | None) -> str:
        """All of it in a line; seconds: how long it will take."""
        parts = [f"{self.done} of {self.expected} runs and searches done"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{len(self.at_work)} under way"] if self.at_work else []
        parts += [f"about {in_words_of_time(seconds)} left"] if seconds is not None and self.left else []
        return ", ".join(parts)


def progress_of(runs: Sequence[Prepared], expected: int) -> Progress:
    """How far these runs are, read without a lock.

    Args:
        runs: that are known so far.
        expected: how many there will be.
    """
    done, failed, at_work = 0, 0, []
    for run in runs:
        if (run.folder.path / FAILED).exists():
            failed += 1
        elif run.folder.is_finished:
            done += 1
        elif (held := _holder(run.folder)) is not None:
            at_work.append(held)
    return Progress(done, failed, max(expected, len(runs)), tuple(at_work))


def _holder(folder: RunFolder) -> AtWork | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, OverflowError):
        names = [name for name in os.listdir(folder.path) if HOLDER.fullmatch(name)]
        if names:
            said = said_by(folder.path / max(names, key=lambda name: int(name.rpartition("-")[2])))
            since = time.time() - float(said.get("since", time.time()))
            who = f"process {int(said['process'])} of {printable_text(str(said['host'])[:8])}"
            return AtWork(printable_text(folder.path.name), who, max(0.0, since))
    return None
