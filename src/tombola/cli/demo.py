"""tombola demo: the main job on embedded data."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tombola.cli.compare import CompareOptions, study
from tombola.cli.console import console
from tombola.cli.output import RunOptions
from tombola.cli.parse import parse
from tombola.methods import method
from tombola.studies import default_options

METHODS = ("gem-miner", "imp", "snip", "synflow", "random")
DENSITIES = (0.2, 0.05)


@dataclass(frozen=True)
class DemoOptions:
    """Find tickets with several methods on real images, prove whether they win, and see it in a report."""

    seeds: int = 3
    """how many seeds"""
    out: Path = Path("runs/demo")
    """the folder of the runs, the tickets and the report"""


def run(words: Sequence[str]) -> int:
    options = parse(
        "demo", words, DemoOptions.__doc__, demo=DemoOptions(), task=default_options(words), run=RunOptions()
    )
    own = CompareOptions(densities=DENSITIES, seeds=options.demo.seeds, out=options.demo.out)
    methods = [method(name, density=density) for name in METHODS for density in DENSITIES]
    title = f"Winning tickets of {options.task.model} on {options.task.data}"
    status = study(own, methods, options.task, options.run, title, shlex.join(["tombola", "demo", *words]))
    if not options.run.json:
        tombola = "tombola" if shutil.which("tombola") else os.path.relpath(sys.argv[0])
        console().print(
            f"\nEach run's ticket is in its folder under {own.out}. Next:\n"
            f"  open {own.out}/report.html in a browser\n"
            f"  {tombola} demo --seeds 8                                   more seeds, on top of these runs\n"
            f"  {tombola} find imp --density 0.1 --out runs/my-ticket      search for a ticket of your own\n"
            f"  {tombola} check runs/my-ticket                             does it win?\n"
            f"  {tombola} find imp --data mine:data --model mine:Net       your own data and network, in mine.py"
        )
    return status
