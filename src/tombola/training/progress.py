"""Progress of long work: bars on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Tick(Protocol):
    """Moves a bar on by some steps, and shows a few words beside it."""

    def __call__(self, words: str, steps: int = 1) -> None: ...


class Bars:
    """Nested progress bars.

    Args:
        progress: shows them; None shows nothing.
    """

    def __init__(self, progress: Progress | None = None) -> None:
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
        shown: False shows none; without a terminal on standard error there are none either.

    Yields:
        The bars, to hand to a `Run`.
    """
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
