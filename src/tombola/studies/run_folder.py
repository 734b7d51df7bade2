"""The folder of one run: what it is, how far it came, and what it came to."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from tombola.errors import DamagedError, FileError
from tombola.files import (
    FORMAT,
    Lease,
    as_lines,
    as_written,
    check_format,
    held,
    json_of,
    printable_text,
    read_as,
    set_aside,
    write_atomically,
    write_once,
)
from tombola.files.atomic_files import DAMAGED, PART
from tombola.files.lease import HOLDER
from tombola.studies.legacy import upgraded_run
from tombola.studies.result import Result
from tombola.studies.spec import CONDITIONS, NAMES, digest
from tombola.tickets import Ticket
from tombola.training import is_stage_file, remove_stages

T = TypeVar("T")

SETTINGS, HISTORY, RESULT = "settings.json", "history.jsonl", "result.json"
TICKET, CURVE, STAGES, TRAINED = "ticket.safetensors", "search.svg", "stages", "trained.pt"
FAILED, LOG = "failed.json", "tombola.log"
WRITTEN = (SETTINGS, HISTORY, RESULT, TICKET, CURVE, TRAINED, FAILED, LOG, "tried.jsonl", ".lock", ".owner")
"""The files that a run writes into its folder; the last two are of the first version."""

DEATHS = 8
"""Processes that may die at one run, one after another, before it is given up."""


class ConditionsWarning(UserWarning):
    """Results that are used, or a run that goes on, were made with other threads or on another device."""


def in_words(conditions: Mapping[str, Any]) -> str:
    """Conditions as they are said.

    Examples:
        >>> in_words({"threads": 1, "device": "cpu"})
        '1 thread on cpu'
    """
    threads = conditions.get("threads", 0)
    return f"{threads} thread{'s' * (threads != 1)} on {conditions.get('device', 'another device')}"


FailureKind = Literal["error", "time", "memory"]


@dataclass(frozen=True)
class Failure:
    """Why a run failed.

    Args:
        kind: it raised an error, took longer than its limit, or needs more memory than there is.
        reason: in a sentence.
        seconds: how long it ran.
    """

    kind: FailureKind
    reason: str
    seconds: float = 0.0


class RunFolder:
    """One run's folder: settings.json, ticket.safetensors, result.json, trained.pt, history.jsonl, search.svg, stages/.

    Args:
        path: the folder, which need not be there yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def ticket_path(self) -> Path:
        return self.path / TICKET

    @property
    def curve_path(self) -> Path:
        return self.path / CURVE

    @property
    def trained_path(self) -> Path:
        """Where the end of the training is, of a run that keeps its network."""
        return self.path / TRAINED

    @property
    def is_finished(self) -> bool:
        """Whether there is a result, or of a search the ticket and its history."""
        found = os.path.exists  # which, unlike a path's own, finds nothing by a name that is too long
        return found(self.path / RESULT) or (found(self.ticket_path) and not found(self.path / STAGES))

    def settings(self) -> dict[str, Any] | None:
        """What the run is, in today's form; None before it was begun."""
        return as_written(self.path / SETTINGS, _settings, "remove the folder or use --fresh, if it is a run's")

    def result(self) -> Result | None:
        """What the run came to; None before it is finished."""
        return self._read(RESULT, Result.read)

    def history(self) -> list[dict[str, Any]]:
        """The epochs of a finished search or training."""
        return self._read(HISTORY, _history) or []

    def failure(self) -> Failure | None:
        """Why the run failed; None if it did not, or that cannot be read, so that the run is tried again."""
        try:
            return self._read(FAILED, lambda text: read_as(Failure, json_of(text)))
        except DamagedError:
            return None

    def fail(self, failure: Failure) -> None:
        """Keep why the run failed."""
        write_atomically(self.path / FAILED, json.dumps({"format": FORMAT, **asdict(failure)}))

    def forget_failure(self) -> None:
        """Let the run be tried again."""
        (self.path / FAILED).unlink(missing_ok=True)

    def ticket(self) -> Ticket | None:
        """The ticket that the run found, or trained; None before there is one."""
        return Ticket.load(self.ticket_path) if os.path.exists(self.ticket_path) else None

    def finished(self, settings: Mapping[str, Any], read: Callable[[], T | None]) -> T | None:
        """What the run of these settings came to, read without holding the folder; None if it has yet to end.

        What a kill left after the end of the run goes.

        Args:
            settings: what the run is.
            read: what is asked for: the folder's `result`, or the `ticket` of a search.
        """
        try:
            kept = self.settings()
            is_finished = self.is_finished and kept is not None and digest(kept) == digest(settings)
            outcome = read() if is_finished else None
        except DamagedError:
            return None
        if outcome is not None:
            self._tidy()
        return outcome

    def _tidy(self) -> None:
        """Remove what a kill left after the end of a run, where nobody is at work and it can be removed."""
        names = os.listdir(self.path)
        if STAGES in names or any(HOLDER.fullmatch(name) or PART.fullmatch(name) for name in names):
            with contextlib.suppress(FileError), self.held():
                remove_stages(self.path / STAGES)

    @contextmanager
    def held(self) -> Generator[Lease]:
        """Hold the folder, so that no other process works in it.

        Raises:
            InUse: another process holds it.
            FileError: there are files in it that Tombola did not write, or too many processes died at work in it.
        """
        if not os.path.exists(self.path / SETTINGS) and (foreign := self._foreign(begun=False)):
            raise FileError(
                f"{self.path} is no run's folder: it holds {_listed(foreign)}; give --out a folder that is empty or new"
            )
        with held(self.path) as lease:
            if lease.number > DEATHS:
                raise FileError(
                    f"{self.path.name} is given up: {lease.number - 1} processes in a row ended at it without a word, "
                    "killed by somebody or for want of memory; run the same command again to try it once more"
                )
            yield lease

    def begin(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Begin, or go on with, the run of these settings, in a folder that is held.

        Returns:
            The settings as they are kept.

        Raises:
            FileError: the folder holds another run.
        """
        for name, read in ((RESULT, self.result), (TICKET, self.ticket), (HISTORY, self.history)):
            try:
                read()
            except DamagedError as error:
                set_aside(self.path / name, error)
        held = self.settings()
        if held is not None and digest(held) != digest(settings):
            differing = [key for key in settings if key not in (*NAMES, *CONDITIONS) and held.get(key) != settings[key]]
            raise FileError(
                f"{self.path} holds another run (other {', '.join(differing)}); "
                "choose another --out, or --fresh to replace it"
            )
        if held is not None and (self.is_finished or under(held) == under(settings)):
            return held
        if held is not None:
            warnings.warn(
                f"{self.path.name} began with {in_words(under(held))} and goes on with {in_words(under(settings))}: it "
                "may end otherwise in the last digits than one that is not disturbed",
                ConditionsWarning,
                stacklevel=3,
            )
            settings = {**settings, "began": held.get("began", under(held))}
        write_atomically(self.path / SETTINGS, json.dumps({"format": FORMAT, **settings}, indent=2))
        return settings

    def finish_search(self, ticket: Ticket, history: Iterable[Mapping[str, Any]]) -> None:
        """Keep what a search came to."""
        write_atomically(self.path / HISTORY, as_lines(history))
        ticket.save(self.ticket_path)
        self.forget_failure()

    def finish(self, result: Result) -> Result:
        """Keep what the run came to, unless another holder of the folder was first.

        Returns:
            The result that is kept.
        """
        write_atomically(self.path / HISTORY, as_lines(result.history))
        kept = result if write_once(self.path / RESULT, result.to_json()) else self.result() or result
        self.forget_failure()
        return kept

    def renew(self) -> None:
        """Forget the run that is in the folder, if there is one."""
        if self.path.exists():
            with self.held():
                self.clear()

    def clear(self) -> None:
        """Forget the run that is in the folder.

        Raises:
            FileError: there is something in it that Tombola did not write; nothing is removed.
        """
        if foreign := self._foreign():
            raise FileError(
                f"{self.path} holds {_listed(foreign)} beside a run, and --fresh removes only what Tombola wrote; "
                "move it away, or choose another --out"
            )
        self._check_is_a_run()
        remove_stages(self.path / STAGES)
        # The settings last: without them, a folder is no run's.
        for path in sorted(self.path.iterdir(), key=lambda path: path.name == SETTINGS):
            if path.name.removesuffix(DAMAGED) in WRITTEN:
                path.unlink()

    @property
    def is_a_run(self) -> bool:
        """Whether its settings.json is not another program's: it is ours if it reads as ours, or a result does."""
        for read in (self.settings, self.result, self.ticket):
            with contextlib.suppress(FileError):
                if read() is not None:
                    return True
        return False

    def _check_is_a_run(self) -> None:
        if self.is_a_run or not os.path.exists(self.path / SETTINGS):
            return
        raise FileError(
            f"nothing in {self.path} can be read as a run's, and --fresh removes only what Tombola wrote; remove the "
            "folder yourself, or choose another --out"
        )

    def _foreign(self, begun: bool = True) -> list[str]:
        """What is in the folder, or among its stages, that no run writes.

        begun: a run was begun there; before that, it has only been held.
        """
        places = list(self.path.iterdir()) if self.path.is_dir() else []
        if not begun:
            return sorted(path.name for path in places if path.is_dir() or not _is_of_a_hold(path.name))
        foreign = [path.name for path in places if not _is_ours(path)]
        stages = self.path / STAGES
        if stages.is_dir() and not stages.is_symlink():
            foreign += [
                f"{STAGES}/{path.relative_to(stages)}"
                for path in stages.rglob("*")
                if path.is_symlink() or not (path.is_dir() or is_stage_file(path))
            ]
        return sorted(foreign)

    def _read(self, name: str, parse: Callable[[str], T]) -> T | None:
        """What a file of the folder stands for; None if it is not there."""
        return as_written(self.path / name, parse, "remove the folder or use --fresh")


def _settings(text: str) -> dict[str, Any]:
    content = json_of(text)
    check_format(content)
    content.pop("format", None)
    if missing := [name for name in ("task", *CONDITIONS) if name not in content]:
        raise ValueError(f"no run's settings are without {missing[0]}")
    return upgraded_run(content)


def _history(text: str) -> list[dict[str, Any]]:
    return [read_as(dict[str, Any], json_of(row)) for row in text.splitlines()]


def _is_ours(path: Path) -> bool:
    """Whether a file or folder within a run's is of a kind and name that a run writes."""
    if path.name == STAGES:
        return path.is_dir() and not path.is_symlink()
    return (path.name.removesuffix(DAMAGED) in WRITTEN or _is_of_a_hold(path.name)) and not path.is_dir()


def _is_of_a_hold(name: str) -> bool:
    """Whether a file is left of holding a folder, of writing into it, or of a run that could not be begun."""
    return bool(name in (".lock", ".owner", FAILED, LOG) or HOLDER.fullmatch(name) or PART.fullmatch(name))


def _listed(names: Sequence[str]) -> str:
    """The first few of some names.

    Examples:
        >>> _listed(["a", "b", "c", "d"])
        'a, b, c and 1 more'
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(printable_text, names[:3])) + more


def under(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions that settings name."""
    return {key: settings[key] for key in CONDITIONS if key in settings}
