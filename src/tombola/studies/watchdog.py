"""What ends work from outside: the limit of a run, the limit of the study, and the order to stop."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal

STOP, PAUSE = ".stop", ".pause"
"""Files in a study's folder: workers end at once, or begin nothing new as long as the file is there."""
LOOK = 0.5
"""Seconds between two looks at clock and orders."""
GRACE = 30.0
"""Seconds that work has to end after it was told so; then its process ends."""

Why = Literal["", "limit", "time", "stop"]
"""Why work ends: its own limit, the study's time, or an order."""


class Ended(BaseException):
    """Work is ended from outside; what it has kept stays.

    Args:
        why: the reason.
    """

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why = why


@dataclass
class Watchdog:
    """Ends the main thread's work when it must end.

    Args:
        root: the study's folder.
        limit: seconds that one piece of work may take.
        until: the moment, in seconds since the epoch, at which all work ends.
        is_own_process: the process is there for this work alone, and can be ended if the work does not react.
    """

    root: Path
    limit: float = math.inf
    until: float = math.inf
    is_own_process: bool = True
    _began: float | None = None
    _hung: Callable[[], None] = lambda: None
    _told: Why = ""
    _done: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def on_duty(self) -> Generator[None]:
        """Watch while the block runs in the main thread."""
        before = signal.signal(signal.SIGALRM, self._end)
        thread = threading.Thread(target=self._watch, name="tombola-watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()
            signal.signal(signal.SIGALRM, before)

    @contextmanager
    def watching(self, hung: Callable[[], None]) -> Generator[None]:
        """Watch one piece of work.

        Args:
            hung: called before the process is ended, if the work does not react.

        Raises:
            Ended: its time is over, or it is told to end.
        """
        with self._lock:
            self._began, self._hung, self._told = time.monotonic(), hung, ""
        try:
            yield
        finally:
            with self._lock:
                self._began = None

    def why(self) -> Why:
        """Why nothing new may begin; nothing if it may."""
        if (self.root / STOP).exists():
            return "stop"
        return "time" if time.time() >= self.until else ""

    def is_paused(self) -> bool:
        """Whether nothing new may begin for now."""
        return (self.root / PAUSE).exists()

    def _end(self, signum: int, frame: FrameType | None) -> None:
        if self._began is not None:
            raise Ended(self._told)

    def _watch(self) -> None:
        told_at = 0.0
        while not self._done.wait(LOOK):
            with self._lock:
                if self._began is None:
                    continue
                if self._told and time.monotonic() - told_at > GRACE:
                    self._hung()
                    _end_process(self.is_own_process)
                if not self._told:
                    late = time.monotonic() - self._began > self.limit
                    if why := "limit" if late else self.why():
                        self._told, told_at = why, time.monotonic()
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)


def _end_process(is_own: bool) -> None:
    """End a process that does not react; one that was typed begins again with the same words."""
    if is_own:
        os.kill(os.getpid(), signal.SIGKILL)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
