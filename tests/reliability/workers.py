"""Kill workers, drivers or Ray's nodes at random: a study ends, nothing lost, nothing done twice, equal to a calm one.

Run `python tests/reliability/workers.py`, with `--what driver` or `--what nodes` for the other two; nodes need Ray. It
prints what it did and exits 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tombola.studies import PLAN, Store, rows_of

FILE = """
seeds = 2
controls = ["shuffle", "random"]
[[tasks]]
data = "digits"
width = 0.5
recipe = { epochs = 30, batch = 32 }
[[methods]]
method = "imp"
densities = [0.5, 0.2, 0.1]
settings = { count = 3 }
[[methods]]
method = "snip"
densities = [0.5, 0.2, 0.1]
"""
PORT = 6399
"""Of the head of the Ray cluster."""


class Crew(Protocol):
    """Who works on a study."""

    study: Path
    processes: list[subprocess.Popen]

    def kill(self, drawn: random.Random) -> None:
        """Kill a part of it that lives, and start it again."""


@dataclass
class Workers:
    """Four workers without a driver."""

    study: Path
    processes: list[subprocess.Popen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.processes += [_started("work", str(self.study)) for _ in range(4)]

    def kill(self, drawn: random.Random) -> None:
        victim = drawn.choice([process for process in self.processes if process.poll() is None])
        _killed(victim)
        self.processes.remove(victim)
        self.processes.append(_started("work", str(self.study)))


@dataclass
class Driver:
    """A driver with two processes that work for it; it alone is killed, and they find out."""

    study: Path
    more: tuple[str, ...] = ()
    processes: list[subprocess.Popen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.processes = [_started("study", str(self.study), "--workers", "2", *self.more)]

    def kill(self, drawn: random.Random) -> None:
        _killed(self.processes[0])
        self.__post_init__()


@dataclass
class Nodes(Driver):
    """A driver on a Ray cluster of two nodes, of which the second is killed."""

    more: tuple[str, ...] = ("--ray", f"127.0.0.1:{PORT}")
    node: subprocess.Popen | None = None

    def __post_init__(self) -> None:
        if self.node is None:
            self.node = _node()
        super().__post_init__()

    def kill(self, drawn: random.Random) -> None:
        import psutil

        assert self.node is not None
        for process in [*psutil.Process(self.node.pid).children(recursive=True), psutil.Process(self.node.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.node.wait()
        self.node = _node()


def _node(*how: str) -> subprocess.Popen:
    where = how or ("--address", f"127.0.0.1:{PORT}")
    words = [str(Path(sys.executable).parent / "ray"), "start", *where, "--num-cpus", "1", "--block"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


@contextmanager
def _cluster(what: str) -> Iterator[None]:
    """Ray's head, where it is needed, with the second node that may be left."""
    if what != "nodes":
        yield
        return
    head = _node("--head", "--port", str(PORT), "--include-dashboard", "false")
    time.sleep(10)
    try:
        yield
    finally:
        head.kill()
        subprocess.run([str(Path(sys.executable).parent / "ray"), "stop", "--force"], capture_output=True, check=False)


def _started(*words: str) -> subprocess.Popen:
    command = [sys.executable, "-W", "ignore", "-m", "tombola.cli", *words, "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _killed(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def _told(study: Path) -> list[tuple]:
    rows = rows_of(Store(study).results())
    return sorted((row["run"], row["metric"], row["loss"], row["validation"]) for row in rows)


def _plan(folder: Path) -> Path:
    folder.mkdir()
    (folder / PLAN).write_text(FILE)
    return folder


CREWS = {"workers": Workers, "driver": Driver, "nodes": Nodes}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=CREWS, default="workers")
    parser.add_argument("--kills", type=int, default=50, help="how many in all, over as many studies as that takes")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    drawn, killed, wrong = random.Random(0), 0, []
    with tempfile.TemporaryDirectory() as root, _cluster(options.what):
        calm = _plan(Path(root) / "calm")
        began = time.monotonic()
        _started("work", str(calm)).wait()
        expected = _told(calm)
        print(f"calm: {len(expected)} runs in {time.monotonic() - began:.0f} s", flush=True)
        while killed < options.kills:
            study = _plan(Path(root) / f"after {killed} kills")
            killed += _disturbed(CREWS[options.what](study), len(expected), drawn, options.kills - killed, wrong)
            wrong += [] if _told(study) == expected else ["other results"]
            wrong += [f"left: {path.name}" for path in study.glob("*/.holder-*")]
            print(f"{killed} killed, {len(_told(study))} runs, {len(wrong)} wrong: {'; '.join(wrong[:5])}", flush=True)
    return 1 if wrong else 0


def _disturbed(crew: Crew, runs: int, drawn: random.Random, most: int, wrong: list[str]) -> int:
    """Kill so many of a crew at most before all its runs are done; how many were killed."""
    study, killed, finished = crew.study, 0, dict[Path, int]()
    least = 1 if isinstance(crew, Workers) else 5
    while any(process.poll() is None for process in crew.processes):
        time.sleep(drawn.uniform(least, 3 * least + 3))
        kept = {path: path.stat().st_ino for path in study.glob("*/result.json")}
        wrong += [f"done twice: {path}" for path, inode in finished.items() if kept.get(path) != inode]
        finished |= kept
        is_at_work = any(process.poll() is None for process in crew.processes)
        if is_at_work and len(finished) < runs and killed < most:
            crew.kill(drawn)
            killed += 1
    ends = [(process.returncode, process.stderr.read()[-300:]) for process in crew.processes if process.stderr]
    wrong += [f"ended with {status}: {said}" for status, said in ends if status not in (0, -signal.SIGKILL)]
    _wait_for_orphans(study)
    return killed


def _wait_for_orphans(study: Path) -> None:
    """Those whose driver was killed end by themselves; give them a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until and any(study.glob("*/.holder-*")):
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
