"""The store: one folder a run, written so that a kill leaves the old state or the new."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tombola.errors import FileError
from tombola.studies.result import Result
from tombola.studies.spec import digest
from tombola.tickets import Ticket, write_atomically


class RunFolder:
    """One run's folder: settings.json, ticket.safetensors, result.json, history.jsonl, search.svg, stages/."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def ticket_path(self) -> Path:
        return self.path / "ticket.safetensors"

    def settings(self) -> dict[str, Any] | None:
        return self._read("settings.json")

    def result(self) -> Result | None:
        content = self._read("result.json")
        return None if content is None else Result.of(content)

    @property
    def curve_path(self) -> Path:
        return self.path / "search.svg"

    def history(self) -> list[dict[str, Any]]:
        """The epochs of a finished search or training."""
        return self._read("history.jsonl", lambda text: [json.loads(line) for line in text.splitlines()]) or []

    def ticket(self) -> Ticket | None:
        return Ticket.load(self.ticket_path) if self.ticket_path.exists() else None

    def begin(self, settings: dict[str, Any]) -> None:
        """Write the settings; FileError if the folder holds another run."""
        held = self.settings()
        if held is not None and digest(held) != digest(settings):
            differing = [k for k in settings if k != "task" and held.get(k) != settings[k]]
            raise FileError(
                f"{self.path} holds another run (other {', '.join(differing)}); "
                "choose another --out, or --fresh to replace it"
            )
        if held is None:
            write_atomically(self.path / "settings.json", json.dumps(settings, indent=2))

    def write_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """One line an epoch."""
        write_atomically(self.path / "history.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def finish(self, result: Result) -> None:
        self.write_history(result.history)
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


class Store:
    """Run folders under one root, each named by method, density, seed and the digest of its settings."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, name: str, settings: dict[str, Any]) -> RunFolder:
        return RunFolder(self.root / f"{name}-{digest(settings)[:12]}")

    def adopt(self, results: Iterable[Result]) -> None:
        """Take finished runs from elsewhere; their folders then hold what a run leaves, but no ticket."""
        for result in results:
            folder = RunFolder(self.root / result.digest)
            if folder.result() is None:
                with folder.locked():
                    folder.begin(result.settings)
                    folder.finish(result)

    def results(self) -> list[Result]:
        """Every finished run."""
        folders = (RunFolder(path.parent) for path in sorted(self.root.glob("*/result.json")))
        return [result for folder in folders if (result := folder.result()) is not None]
