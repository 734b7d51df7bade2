"""Kill workers of a study at random: it ends, nothing is lost, nothing done twice, equal to the undisturbed one.

Run `python tests/reliability/workers.py --kills 50`. It prints what it did and exits 1 if anything differs.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tombola.studies import PLAN, Store, rows_of

FILE = """
seeds = 2
controls = ["shuffle", "random"]
[[tasks]]
data = "digits"
width = 0.5
recipe = { epochs = 4, batch = 32 }
[[methods]]
method = "imp"
densities = [0.5, 0.2, 0.1]
settings = { count = 3 }
[[methods]]
method = "snip"
densities = [0.5, 0.2, 0.1]
"""


def told(study: Path) -> list[tuple]:
    rows = rows_of(Store(study).results())
    return sorted((row["run"], row["metric"], row["loss"], row["validation"]) for row in rows)


def start(study: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "tombola.cli", "work", str(study), "--device", "cpu"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    drawn, killed, wrong = random.Random(0), 0, []
    with tempfile.TemporaryDirectory() as root:
        whole, study = Path(root) / "whole", Path(root) / "killed"
        for folder in (whole, study):
            folder.mkdir()
            (folder / PLAN).write_text(FILE)
        started = time.monotonic()
        start(whole).wait()
        print(f"undisturbed: {len(told(whole))} runs in {time.monotonic() - started:.0f} s", flush=True)
        workers, finished = [start(study) for _ in range(options.workers)], {}
        while workers:
            time.sleep(drawn.uniform(1, 6))
            kept = {path: path.stat().st_ino for path in study.glob("*/result.json")}
            wrong += [f"done twice: {path}" for path, inode in finished.items() if kept.get(path) != inode]
            finished |= kept
            alive = [worker for worker in workers if worker.poll() is None]
            wrong += [f"ended with {one.returncode}" for one in workers if one.poll() not in (None, 0, -signal.SIGKILL)]
            if alive and killed < options.kills:
                victim = drawn.choice(alive)
                victim.kill()
                victim.wait()
                killed += 1
                alive = [*(worker for worker in alive if worker is not victim), start(study)]
            workers = alive
        wrong += [] if told(study) == told(whole) else ["other results"]
        wrong += [f"left: {path.name}" for path in study.glob("*/.holder-*")]
        print(f"{killed} killed, {len(told(study))} runs, {len(wrong)} wrong: {'; '.join(wrong[:5])}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
