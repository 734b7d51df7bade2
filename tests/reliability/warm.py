"""Commands in processes that are forked from one that has everything imported."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import tombola.cli
import tombola.report.html_page
from tombola.training import checkpoint

for command in tombola.cli.COMMANDS:
    importlib.import_module(f"tombola.cli.{command}")
torch.set_num_threads(1)


def preload(words: list[str]) -> None:
    """Import here what a command imports when it runs, so that no process does it again.

    The command itself runs in a process of its own: a process in which autograd has run cannot be forked.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "imported"

        def tell_at_the_end() -> None:
            leave = os._exit

            def told(status: int) -> None:
                names.write_text("\n".join(sys.modules))
                leave(status)

            os._exit = told

        ended = run(words, Path(folder) / "run", tell_at_the_end)
        assert ended.status == 0, ended.err
        for name in names.read_text().splitlines():
            with contextlib.suppress(Exception):  # Some can only be imported by the module that holds them.
                importlib.import_module(name)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status (minus the number of a signal), what it said, and its peak memory."""

    status: int
    out: str
    err: str
    memory: int


def start(words: list[str], folder: Path, before: Callable[[], None] = lambda: None) -> int:
    """Run a command in a folder, in a process of its own; gives the process.

    Args:
        words: after `tombola`.
        folder: where it runs; what it says goes to files beside it.
        before: called in the process first.
    """
    process = os.fork()
    if process:
        return process
    status = 99
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        for number, name in ((1, "stdout"), (2, "stderr")):
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        sys.argv = ["tombola", *words]
        tombola.report.html_page.pictures = lambda *_: {}  # They take seconds, and are made last.
        checkpoint.Checkpoint.due = lambda _: True
        before()
        status = tombola.cli.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 70
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):
                stream.flush()
        os._exit(status)


def end(process: int, folder: Path, seconds: float = 300.0) -> Ended:
    """Wait for a command; one that takes too long is killed."""
    until = time.monotonic() + seconds
    while True:
        ended, status, used = os.wait4(process, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > until:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.005)
    said = [Path(f"{folder}.{name}").read_text(errors="replace") for name in ("out", "err")]
    for name in ("out", "err"):
        Path(f"{folder}.{name}").unlink()
    return Ended(os.waitstatus_to_exitcode(status), *said, used.ru_maxrss * 1024)


def run(words: list[str], folder: Path, before: Callable[[], None] = lambda: None, seconds: float = 300.0) -> Ended:
    """Run a command in a folder and wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    return end(start(words, folder, before), folder, seconds)


def limit_memory(most: int) -> Callable[[], None]:
    """What keeps a process from taking more memory than so many bytes beyond what it has."""

    def limit() -> None:
        has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + most, has + most))

    return limit


def part_of(items: list[Any], words: str) -> list[Any]:
    """One part of the trials, spread over all of them: of `2/10` the second, twelfth, …"""
    part, parts = map(int, words.split("/"))
    return items[part - 1 :: parts]


def on_two_cores(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """The work on each item, two at a time, as it is finished."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        yield from pool.imap_unordered(work, items)
