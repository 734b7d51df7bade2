"""Kill Tombola everywhere, fill its disk, start it twice: what it ends with is always what it would have ended with.

Run `python tests/reliability/kills.py`; with `--part 2/20` it takes the second twentieth of the trials. It prints a
table and exits 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from warm import Ended, end, on_two_cores, part_of, preload, run, start

import tombola as tb

SMALL = ["--width", "0.1", "--recipe.epochs", "2", "--recipe.batch", "256"]
TINY = ["--width", "0.1", "--recipe.epochs", "1", "--recipe.batch", "256"]
FIND = ["--density", "0.5", *SMALL, "--out", "t"]
COMMANDS: dict[str, list[str]] = {
    "find": ["find", "imp", *FIND],
    "train": ["train", "snip", "--density", "0.5", "--control", "shuffle", *SMALL, "--out", "t"],
    "check": ["check", "snip", "--density", "0.5", "--seeds", "1", "--controls", "random", *TINY, "--out", "t"],
    "compare": [
        "compare",
        "snip",
        "random",
        "--densities",
        "0.5",
        "--seeds",
        "1",
        "--controls",
        "random",
        *TINY,
        "--out",
        "t",
    ],
    "sparsest": ["sparsest", "random", "--seeds", "1", "--halvings", "1", "--densities", "0.5", *TINY, "--out", "t"],
    "claims": ["claims", "greedy-bounds", "--quick", "--out", "t"],
}
METHODS = {
    "early-bird": ["find", "early-bird", "--model", "resnet20", *FIND],
    "worm": ["find", "worm", "--model", "resnet20", *FIND],
    "greedy": ["find", "greedy-neurons", "--density", "0.5", *SMALL[2:], "--model", "two-layer", "--out", "t"],
    "gem-miner": ["find", "gem-miner", *FIND],
    "rigl": ["find", "rigl", *FIND],
    "imp": ["find", "imp", *FIND],
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
ROOM = ("open", "os.mkdir", "os.link")
"""The operations that a full disk refuses."""
NOT_AN_OUTCOME = ("seconds", "peak_memory", "energy", "carbon", "cost", "check", "seal")


def hooked(at: Callable[[str, int], None]) -> Callable[[], None]:
    """What calls `at` before each operation that changes a file in the folder, with its kind and number."""

    def install() -> None:
        here, number = os.getcwd(), 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal number
            changes = event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES)
            named = changes and isinstance(arguments[0], str | os.PathLike)
            if named and os.path.abspath(arguments[0]).startswith(here):
                number += 1
                at(event, number)

        sys.addaudithook(hook)

    return install


def killing(point: int) -> Callable[[], None]:
    """Kill the process before its operation of this number."""
    return hooked(lambda _, number: os._exit(137) if number == point else None)


def filling(point: int, code: int = errno.ENOSPC) -> Callable[[], None]:
    """From this operation on the disk is full."""

    def full(event: str, number: int) -> None:
        if number >= point and event in ROOM:
            raise OSError(code, os.strerror(code))

    return hooked(full)


def outcome(folder: Path) -> dict[str, Any]:
    """All that a command left: names of files, and what tickets, results and studies say, times aside."""
    left: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            left[str(path.relative_to(folder))] = _said(path)
    return left


def _said(path: Path) -> Any:
    if path.name.endswith(".safetensors"):
        return tb.Ticket.load(path).digest
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return None


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in NOT_AN_OUTCOME}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def differs(words: list[str], folder: Path, expected: dict[str, Any]) -> str:
    """What is wrong after the same command ran to its end; nothing if all is as if it had not been disturbed."""
    finished = {path: path.stat().st_ino for path in folder.rglob("result.json")}
    ended = run(words, folder)
    if ended.status:
        return f"status {ended.status}: {ended.err[-300:]}"
    again = [path for path, inode in finished.items() if path.stat().st_ino != inode]
    left = outcome(folder)
    odd = sorted(left.keys() ^ expected.keys())
    other = sorted(name for name in left.keys() & expected.keys() if left[name] != expected[name])
    shutil.rmtree(folder)
    return "; ".join(
        f"{what}: {', '.join(map(str, names))}"
        for what, names in (("done twice", again), ("left or lacking", odd), ("other", other))
        if names
    )


def raw(ended: Ended, *statuses: int) -> str:
    """What is wrong with how a disturbed command ended."""
    if ended.status not in statuses:
        return f"status {ended.status}: {ended.err[-300:]}"
    return "a traceback" if "Traceback" in ended.err else ""


class Trial:
    """One disturbance of one command, done in a process of a pool."""

    def __init__(self, kind: str, name: str, words: list[str], point: float, expected: dict[str, Any], root: Path):
        self.kind, self.name, self.words, self.point, self.expected, self.root = (
            kind,
            name,
            words,
            point,
            expected,
            root,
        )

    def __call__(self) -> str:
        folder = self.root / f"{self.kind}-{self.name}-{self.point:.6g}".replace(" ", "-")
        folder.mkdir()
        wrong = getattr(self, self.kind)(folder)
        return wrong or differs(self.words, folder, self.expected)

    def killed(self, folder: Path) -> str:
        return raw(run(self.words, folder, killing(int(self.point))), 137)

    def full(self, folder: Path) -> str:
        return raw(run(self.words, folder, filling(int(self.point))), 0, 1, 2)

    def random(self, folder: Path) -> str:
        return self._signalled(folder, signal.SIGKILL, -9)

    def TERM(self, folder: Path) -> str:
        return self._signalled(folder, signal.SIGTERM, 143)

    def INT(self, folder: Path) -> str:
        return self._signalled(folder, signal.SIGINT, 130)

    def HUP(self, folder: Path) -> str:
        return self._signalled(folder, signal.SIGHUP, 129)

    def several(self, folder: Path) -> str:
        """Of two or three processes at once each ends well, or says that another one is at work."""
        begun = []
        for number in range(int(self.point)):
            beside = folder.with_name(f"{folder.name}.{number}")
            beside.symlink_to(folder)
            begun.append((start(self.words, beside), beside))
        ended = [end(process, beside) for process, beside in begun]
        wrong = [raw(one, 0, 2) for one in ended]
        wrong += ["not said who is at work" for one in ended if one.status == 2 and "in use by another" not in one.err]
        wrong += [] if any(one.status == 0 for one in ended) else ["none of them came to an end"]
        return "; ".join(filter(None, wrong))

    def read_only(self, folder: Path) -> str:
        """What is finished is read; what is not is refused in one sentence."""
        fresh = run(self.words, folder, filling(1, errno.EROFS))
        if wrong := raw(fresh, 2):
            return f"unfinished: {wrong}"
        run(self.words, folder)
        return raw(run(self.words, folder, filling(1, errno.EROFS)), 0, 2)

    def _signalled(self, folder: Path, number: int, status: int) -> str:
        process = start(self.words, folder)
        time.sleep(self.point)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
        ended = end(process, folder)
        wrong = raw(ended, status, 0)
        return wrong or ("nothing said" if ended.status > 128 and "stopped; run the same" not in ended.err else "")


def trials(root: Path) -> list[Trial]:
    """All disturbances, after each command ran undisturbed."""
    drawn, found = random.Random(0), []
    for name in ("compare", "sparsest", "claims"):
        preload(COMMANDS[name])
    for name, words in {**COMMANDS, **METHODS}.items():
        folder, points = root / f"whole-{name}", root / f"points-{name}"
        folder.mkdir()
        points.write_text("0")
        ended = run(words, folder, hooked(lambda _, number, points=points: points.write_text(str(number)) and None))
        if ended.status:
            raise SystemExit(f"{name} does not run: {ended.err[-500:]}")
        expected, count = outcome(folder), int(points.read_text())
        started = time.monotonic()
        run(words, root / f"timed-{name}")
        seconds = time.monotonic() - started
        print(f"{name}: {count} operations, {seconds:.1f} s", flush=True)

        def add(kind: str, at: list[float], name=name, words=words, expected=expected) -> None:
            found.extend(Trial(kind, name, words, point, expected, root) for point in at)

        times = [drawn.uniform(0.05, seconds) for _ in range(50)]
        if name in COMMANDS:
            add("killed", list(range(1, count + 1)))
            add("full", list(range(1, count + 1)))
            add("several", [2, 3])
            add("read_only", [1])
            for kind in ("TERM", "INT", "HUP"):
                add(kind, times[:5])
        if name in METHODS:
            add("killed", drawn.sample(range(1, count + 1), min(count, 20)))
        if name == "compare":
            add("random", times)
    return found


def _tried(trial: Trial) -> tuple[str, str, float, str]:
    return trial.kind, trial.name, trial.point, trial()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="1/1", help="of all trials, as 2/20 for the second twentieth")
    part = parser.parse_args().part
    with tempfile.TemporaryDirectory() as root:
        asked = part_of(trials(Path(root)), part)
        counts: Counter[tuple[str, str]] = Counter()
        wrong = []
        for number, (kind, name, point, what) in enumerate(on_two_cores(_tried, asked), start=1):
            counts[kind, name] += 1
            if what:
                wrong.append(f"{kind} {name} at {point:.6g}: {what}")
                print(wrong[-1], flush=True)
            if number % 50 == 0:
                print(f"{number} of {len(asked)}", flush=True)
    for (kind, name), count in sorted(counts.items()):
        print(f"{kind:10} {name:12} {count:4} trials")
    print(f"{sum(counts.values())} trials, {len(wrong)} not as if undisturbed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
