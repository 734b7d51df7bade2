"""What `tombola study` shows while workers are at it: a live table, or a line a minute off a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tombola.studies import Agenda, Progress, progress_of
from tombola.terminal_table import Column, TerminalTable
from tombola.training import in_words_of_time

EVERY = {True: 1.0, False: 60.0}
"""Seconds between two looks: on a terminal, and off it."""
SHOWN = 12
"""Runs under way that the table shows."""


@contextmanager
def watched(agenda: Agenda, shown: bool, looks: bool) -> Generator[None]:
    """Show how far a study is while the block runs.

    Args:
        agenda: of the study.
        shown: False shows nothing.
        looks: others do the work, so that the agenda must look for what became known.
    """
    if not shown:
        yield
        return
    console, done, started = Console(stderr=True), threading.Event(), time.monotonic()
    agenda.pieces()
    first, expected = progress_of(agenda.known(), agenda.expected()), agenda.expected()

    def look() -> tuple[Progress, float | None]:
        if looks:
            agenda.pieces()
        now = progress_of(agenda.known(), expected)
        new = now.done - first.done
        return now, (time.monotonic() - started) / new * now.left if new > 0 else None

    def follow() -> None:
        if console.is_terminal:
            with Live(console=console, transient=True, auto_refresh=False) as live:
                while not done.wait(EVERY[True]):
                    live.update(_table(*look()), refresh=True)
        else:
            while not done.wait(EVERY[False]):
                now, seconds = look()
                print(f"tombola: {now.sentence(seconds)}", file=sys.__stderr__, flush=True)

    thread = threading.Thread(target=follow, name="tombola-view", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _table(now: Progress, seconds: float | None) -> TerminalTable:
    columns = (Column("run", left=True, least=16), Column("by", drop=1, left=True), Column("for"))
    table = TerminalTable(columns, title=now.sentence(seconds))
    for own in now.at_work[:SHOWN]:
        table.add(Text(own.run), Text(own.who), in_words_of_time(own.seconds))
    if len(now.at_work) > SHOWN:
        table.add(f"and {len(now.at_work) - SHOWN} more", "", "")
    return table
