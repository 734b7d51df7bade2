"""Progress of long work: bars on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Tick(Protocol):
    """Moves a bar on by so many steps, with a few words on how it goes."""

    def __call__(self, words: str, steps: int = 1) -> None: ...


class Bars:
    """Nested progress bars on standard error."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress

    @contextmanager
    def track(self, what: str, total: int, done: int = 0) -> Generator[Tick]:
        """A bar of `total` steps; call what is yielded after each."""
        if self._progress is None:
            yield lambda words, steps=1: None
            return
        progress = self._progress
        bar = progress.add_task(what, total=total, completed=done, words="")
        try:
            yield lambda words, steps=1: progress.update(bar, advance=steps, words=words)
        finally:
            progress.remove_task(bar)


@contextmanager
def bars(shown: bool = True) -> Generator[Bars]:
    """Bars while inside, if `shown` and standard error is a terminal."""
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield Bars()
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
