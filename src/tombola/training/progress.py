"""Progress of long work: bars on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tombola.files import printable_text


class Tick(Protocol):
    """Moves a bar on by some steps, and shows a few words beside it."""

    def __call__(self, words: str, steps: int = 1) -> None: ...


EVERY = 5.0
"""Seconds between two lines off a terminal."""
LONG, SHARE = 20.0, 0.02
"""Seconds, and a share of the work, after which a line says how long the rest takes."""


@dataclass
class Level:
    """One of several nested lengths of work.

    Args:
        what: it is.
        total: steps until it is done.
        done: steps that were done.
        before: those among them that were done when it began.
        began: when that was, in seconds.
        words: of the last step.
    """

    what: str
    total: int
    done: int
    before: int
    began: float
    words: str = ""

    def __str__(self) -> str:
        said = f"{self.what} {min(self.done, self.total)} of {self.total}"
        return f"{said} ({self.words})" if self.words else said


class Lines:
    """What is under way, as a line every few seconds, for logs.

    Args:
        write: writes a line.
        clock: the time in seconds.

    Examples:
        >>> now = iter([0.0, 0.0, 30.0, 32.0, 45.0])
        >>> lines = Lines(print, lambda: next(now))
        >>> with lines.track("runs", 3) as tick:
        ...     tick("imp")
        ...     tick("snip")
        ...     tick("random")
        tombola: 30 s: runs 1 of 3 (imp), about 1 min left
        tombola: 45 s: runs 3 of 3 (random)
    """

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock, self._levels = write, clock, list[Level]()
        self._began = self._last = clock()

    @contextmanager
    def track(self, what: str, total: int, done: int = 0) -> Generator[Tick]:
        """The arguments are those of `Bars.track`."""
        level = Level(what, total, done, done, self._clock())
        self._levels.append(level)

        def tick(words: str, steps: int = 1) -> None:
            level.done, level.words = level.done + steps, words
            now = self._clock()
            if now - self._last >= EVERY:
                self._last = now
                outer, *inner = map(str, self._levels)
                self._write(f"tombola: {now - self._began:,.0f} s: {', '.join([outer + self._left(now), *inner])}")

        try:
            yield tick
        finally:
            self._levels.remove(level)

    def _left(self, now: float) -> str:
        """How long the rest of the outermost work takes, if it goes on as it went."""
        outer, share = self._levels[0], 0.0
        for level in reversed(self._levels[1:]):
            share = min(1.0, (level.done + share) / max(1, level.total))
        share = (outer.done - outer.before + share) / max(1, outer.total - outer.before)
        spent = now - outer.began
        if spent < LONG or not SHARE <= share < 1:
            return ""
        return f", about {in_words_of_time(spent * (1 - share) / share)} left"


def in_words_of_time(seconds: float) -> str:
    """A time for people.

    Examples:
        >>> in_words_of_time(40), in_words_of_time(90), in_words_of_time(7200)
        ('40 s', '2 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Bars:
    """Nested progress bars, or lines.

    Args:
        progress: shows them; None shows nothing.
    """

    def __init__(self, progress: Progress | Lines | None = None) -> None:
        self._progress = progress

    @contextmanager
    def track(self, what: str, total: int, done: int = 0) -> Generator[Tick]:
        """Show a bar while the block runs.

        Args:
            what: the words before the bar.
            total: steps until it is full.
            done: steps that were done before.

        Yields:
            What to call after each step.
        """
        if self._progress is None:
            yield lambda words, steps=1: None
            return
        if isinstance(self._progress, Lines):
            with self._progress.track(what, total, done) as tick:
                yield tick
            return
        progress = self._progress
        bar = progress.add_task(what, total=total, completed=done, words="")
        try:
            yield lambda words, steps=1: progress.update(bar, advance=steps, words=words)
        finally:
            progress.remove_task(bar)


@contextmanager
def bars(shown: bool = True) -> Generator[Bars]:
    """Show progress bars while the block runs.

    Args:
        shown: False shows none; without a terminal on standard error there is a line every few seconds instead.

    Yields:
        The bars, to hand to a `Run`.
    """
    console = Console(stderr=True)
    if not shown:
        yield Bars()
        return
    if not console.is_terminal:
        yield Bars(Lines(_said))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress)


def _said(line: str) -> None:
    """Write a line to standard error, whatever became of it: a log that ended ends no work."""
    with suppress(OSError, ValueError):
        print(printable_text(line), file=sys.stderr, flush=True)
