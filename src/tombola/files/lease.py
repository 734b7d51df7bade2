"""Who holds a folder: one process at a time, here or on another host, without locks that a network's disk may not have.

Each holder has a number, one more than the last one's, and a file `.holder-NUMBER` that is created exclusively: of
several processes that want to follow a holder, exactly one makes the next file. Whoever has the highest number holds
the folder. A holder that was paused, and taken over meanwhile, sees a higher number before it writes, and stops.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import threading
import time
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.errors import FileError
from tombola.files.atomic_files import leftovers, part_of, unwritable, write_once
from tombola.files.processes import HOST, is_alive, started
from tombola.files.reading import content_of

HOLDER = re.compile(r"\.holder-([0-9]{1,9})")
LONGEST = 2**16
"""Bytes of what a holder says of itself."""
BEAT = 5.0
"""Seconds between two signs of life of a holder."""
NEXT = 1.2 * BEAT
"""Seconds within which a holder that lives gives another one."""
SILENT = 120.0
"""Seconds without a sign of life after which a holder counts as gone; long calls into other libraries may delay one."""


class InUse(FileError):
    """Another process holds a folder."""


class LeaseLost(FileError):
    """Another process took over a folder while this one showed no sign of life."""


@dataclass(frozen=True)
class Lease:
    """A hold on a folder.

    Args:
        folder: what is held.
        number: which holder of the folder this is, from 1.
        token: what tells this hold apart from any other of this number.
    """

    folder: Path
    number: int
    token: str

    @property
    def path(self) -> Path:
        return self.folder / f".holder-{self.number}"

    def check(self) -> None:
        """Make sure that the folder is still held, before something is written there.

        Raises:
            LeaseLost: another process has taken over.
        """
        if max(_holders(self.folder), default=0) != self.number or said_by(self.path).get("token") != self.token:
            raise LeaseLost(
                f"another process took over {self.folder}, since this one showed no sign of life for a while; nothing "
                "is lost: run the same command again, and it goes on from what the other one has"
            )


@contextmanager
def held(folder: str | Path) -> Generator[Lease]:
    """Hold a folder; what earlier holders were writing when they died is removed.

    Args:
        folder: made if it is not there.

    Yields:
        The lease, with which to check before each write.

    Raises:
        InUse: another process holds it.
        FileError: it cannot be written.
    """
    lease = _taken(Path(folder))
    _beats.add(lease)
    try:
        stages = lease.folder / "stages"
        for place in (lease.folder, *([Path(own) for own, _, _ in os.walk(stages)] if not stages.is_symlink() else ())):
            for leftover in leftovers(place):
                leftover.unlink(missing_ok=True)
        yield lease
    finally:
        _beats.remove(lease)
        with contextlib.suppress(OSError, FileError):
            lease.check()
            # Not those above, of a process that has followed this very moment.
            for number in _holders(lease.folder, upto=lease.number):
                (lease.folder / f".holder-{number}").unlink(missing_ok=True)


def _taken(folder: Path) -> Lease:
    token = uuid.uuid4().hex
    said = json.dumps(
        {"host": HOST, "process": os.getpid(), "after_boot": started(), "since": time.time(), "token": token}
    )
    try:
        _check_is_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        last = max(_holders(folder), default=0)
        followed = folder / f".holder-{last}"
        sign = said_by(followed)
        if last and not _is_gone(folder, followed):
            raise _in_use(folder, followed)
        lease = Lease(folder, last + 1, token)
        if not write_once(lease.path, said):
            raise _in_use(folder, lease.path)
        _give_way(lease, sign)
    except OSError as error:
        raise unwritable(folder, error, "nothing that was there is lost") from error
    return lease


def _check_is_folder(folder: Path) -> None:
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise FileError(f"{place} is a file, where a folder is to be; move it away, or give another --out")
            return


def _give_way(lease: Lease, followed: Mapping[str, Any]) -> None:
    """Let go again if a process that lives took a lower number meanwhile: the holder that this one follows let go.

    Args:
        lease: what was just taken.
        followed: what the holder said that it follows, and that was found to be gone.
    """
    for number in _holders(lease.folder, upto=lease.number - 1):
        earlier = lease.folder / f".holder-{number}"
        if number == lease.number - 1 and said_by(earlier) == followed:
            continue
        if not _is_gone(lease.folder, earlier):
            lease.path.unlink(missing_ok=True)
            raise _in_use(lease.folder, earlier)


def _holders(folder: Path, upto: float = math.inf) -> list[int]:
    numbers = [int(named[1]) for name in os.listdir(folder) if (named := HOLDER.fullmatch(name))]
    return [number for number in numbers if number <= upto]


def said_by(path: Path) -> dict[str, Any]:
    """What a holder says of itself; nothing if its file is gone, or not whole yet."""
    try:
        said = json.loads(content_of(path, LONGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _is_gone(folder: Path, path: Path) -> bool:
    """Whether a holder is dead, or silent for too long by the clock of the disk, which may not be that of this host."""
    said = said_by(path)
    process, since = said.get("process"), said.get("after_boot")
    known = said.get("host") == HOST and isinstance(process, int) and isinstance(since, float | int)
    if known and not is_alive(process, since):
        return True
    clock = part_of(folder / "clock")
    clock.touch()
    try:
        now = clock.stat().st_mtime
    finally:
        clock.unlink()
    try:
        # A sign from the future is of a clock that was set back: who lives gives the next one by the new clock.
        last = path.stat().st_mtime
        if abs(now - last) <= SILENT:
            return False
        time.sleep(NEXT)  # was it paused or is it dead, or was the clock set since its last sign?
        return path.stat().st_mtime == last
    except FileNotFoundError:  # it has just let go
        return True


def _in_use(folder: Path, path: Path) -> InUse:
    said = said_by(path)
    where = "" if said.get("host") in (HOST, None) else " on another host"
    who = f"process {said.get('process', 'unknown')}{where}"
    return InUse(f"{folder} is in use by another process ({who}); wait for it, or stop it")


class _Beats:
    """A thread that shows for all leases of this process that it lives."""

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        with self._lock:
            self._leases.add(lease)
            if self._thread is None or not self._thread.is_alive():  # which it is not in a forked process either
                self._thread = threading.Thread(target=self._beat, name="tombola-leases", daemon=True)
                self._thread.start()

    def remove(self, lease: Lease) -> None:
        with self._lock:
            self._leases.discard(lease)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._lock:
                leases = list(self._leases)
            for lease in leases:
                with contextlib.suppress(OSError):  # one that was lost: its holder sees that when it writes
                    os.utime(lease.path)


_beats = _Beats()
