"""The store: one folder a run, written so that a kill leaves the old state or the new."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tombola.errors import FileError
from tombola.studies.json_lines import as_lines
from tombola.studies.legacy import upgraded_run, without_code
from tombola.studies.result import Result
from tombola.studies.spec import CONDITIONS, NAMES, digest
from tombola.tickets import Ticket, write_atomically
from tombola.training import fingerprint

DIGITS = 12
"""Of its digest in a folder's name."""
LONGEST = 120
"""Letters of what a run is called in its folder's name; the digest tells it apart."""
HISTORY = "history.jsonl"
ODD = r"[^A-Za-z0-9._-]+"
"""What of a label does not go into a folder's name."""


class StaleWarning(UserWarning):
    """Results that are read, or cannot be, were made by another version of the package's source."""


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


class RunFolder:
    """One run's folder: settings.json, ticket.safetensors, result.json, history.jsonl, search.svg, stages/."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def ticket_path(self) -> Path:
        return self.path / "ticket.safetensors"

    def settings(self) -> dict[str, Any] | None:
        """What the run is, in today's form; None before it was begun."""
        held = self._read("settings.json")
        return None if held is None else upgraded_run(held)

    @property
    def is_finished(self) -> bool:
        """Whether there is a result, or of a search the ticket."""
        return (self.path / "result.json").exists() or (
            self.ticket_path.exists() and not (self.path / "stages").exists()
        )

    def result(self) -> Result | None:
        return self._read("result.json", lambda text: Result.of(json.loads(text)))

    @property
    def curve_path(self) -> Path:
        return self.path / "search.svg"

    def history(self) -> list[dict[str, Any]]:
        """The epochs of a finished search or training."""
        return self._read(HISTORY, lambda text: [json.loads(line) for line in text.splitlines()]) or []

    def ticket(self) -> Ticket | None:
        return Ticket.load(self.ticket_path) if self.ticket_path.exists() else None

    def begin(self, settings: dict[str, Any], anew: bool = False) -> dict[str, Any]:
        """Begin, or go on with, the run of these settings, in a folder that is locked.

        Args:
            settings: what the run is.
            anew: forget what is there.

        Returns:
            The settings as they are kept.

        Raises:
            FileError: the folder holds another run.
        """
        if anew:
            self.clear()
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
        write_atomically(self.path / "settings.json", json.dumps(settings, indent=2))
        return settings

    def finish_search(self, ticket: Ticket, history: Iterable[Mapping[str, Any]]) -> None:
        write_atomically(self.path / HISTORY, as_lines(history))
        ticket.save(self.ticket_path)

    def finish(self, result: Result) -> None:
        write_atomically(self.path / HISTORY, as_lines(result.history))
        write_atomically(self.path / "result.json", result.to_json())

    def clear(self) -> None:
        """Forget everything but the lock."""
        for child in self.path.iterdir() if self.path.exists() else ():
            if child.is_dir():
                shutil.rmtree(child)
            elif child.name != ".lock":
                child.unlink()

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the folder; FileError if another process does. A killed process holds nothing."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make the folder {self.path}: {error.strerror}; choose another --out") from error
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise FileError(
                f"{self.path} is in use by another process ({self._owner()}); wait for it, or choose another --out"
            ) from error
        try:
            (self.path / ".owner").write_text(str(os.getpid()))
            yield
        finally:
            lock.release()

    def _owner(self) -> str:
        owner = self.path / ".owner"
        return f"process {owner.read_text()}" if owner.exists() else "unknown"

    def _read(self, name: str, parse: Callable[[str], Any] = json.loads) -> Any:
        """What a file of the folder stands for; None if it is not there."""
        path = self.path / name
        if not path.exists():
            return None
        try:
            return parse(path.read_text())
        except ValueError as error:
            raise FileError(f"{path} is damaged ({error}); remove the folder or use --fresh") from error


@dataclass(frozen=True)
class Store:
    """Run folders under one root, each named by what the run is called and the digest of what it is.

    Args:
        root: the folder of the folders.
        fresh: make finished runs anew, once in the life of this object.
        exact: use a finished run only if it was made under today's conditions; one made under others stays beside it.
    """

    root: Path
    fresh: bool = False
    exact: bool = False
    _renewed: set[Path] = field(default_factory=set, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    def folder(self, name: str, settings: Mapping[str, Any]) -> RunFolder:
        """Where the run of these settings is, or is to be.

        What it is called, and the conditions, may have been others; a finished run goes before one that was killed,
        and today's conditions before others.
        """
        own = digest(settings)
        here = under(settings)
        found = [folder for folder in self._with(own) if not self.exact or under(folder.settings() or {}) == here]
        if found:
            return max(found, key=lambda folder: (folder.is_finished, under(folder.settings() or {}) == here))
        if self._unrecorded and digest(without_code(dict(settings))) in self._unrecorded:
            warnings.warn(
                f"{name} is from a version that did not record what your own code does; it is made again",
                StaleWarning,
                stacklevel=2,
            )
        path = self.root / f"{re.sub(ODD, '-', name)[:LONGEST].strip('-')}-{own[:DIGITS]}"
        return RunFolder(path if not path.exists() else path.with_name(f"{path.name}-{fingerprint(here)[:6]}"))

    def renews(self, folder: RunFolder) -> bool:
        """Whether what a folder holds is to be made anew; once, so that a call's later runs find it."""
        anew = self.fresh and folder.path not in self._renewed
        self._renewed.add(folder.path)
        return anew

    def adopt(self, results: Iterable[Result]) -> None:
        """Take finished runs from elsewhere; their folders then hold what a run leaves, but no ticket."""
        for result in results:
            folder = RunFolder(self.root / result.digest)
            if folder.result() is None:
                with folder.locked():
                    folder.begin(result.settings)
                    folder.finish(result)
        self.__dict__.pop("_index", None)

    def results(self) -> list[Result]:
        """Every finished run."""
        folders = (RunFolder(path.parent) for path in sorted(self.root.glob("*/result.json")))
        return [result for folder in folders if (result := folder.result()) is not None]

    def _with(self, own: str) -> list[RunFolder]:
        """The folders of a run: those that its digest names, and those that the first version named by another."""
        named = [path.parent for path in self.root.glob(f"*-{own[:DIGITS]}*/settings.json")]
        earlier = self._index.get(own, ())
        folders = [RunFolder(path) for path in sorted({*named, *earlier})]
        return [folder for folder in folders if (held := folder.settings()) is not None and digest(held) == own]

    @cached_property
    def _index(self) -> dict[str, list[Path]]:
        """The folders of the first version by today's digests."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.root.glob("*/settings.json")):
            own = digest(RunFolder(path.parent).settings() or {})
            if f"-{own[:DIGITS]}" not in path.parent.name:
                found.setdefault(own, []).append(path.parent)
        return found

    @cached_property
    def _unrecorded(self) -> set[str]:
        """The runs of the first version whose code it did not record, by what else they are."""
        held = [RunFolder(own).settings() or {} for folders in self._index.values() for own in folders]
        return {digest(without_code(settings)) for settings in held}


def under(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions that settings name."""
    return {key: settings[key] for key in CONDITIONS if key in settings}
