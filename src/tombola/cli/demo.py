"""tombola demo: compare four methods on built-in images and write a report."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from loky import cpu_count

from tombola.cli.compare import CompareOptions, run_comparison
from tombola.cli.console import console
from tombola.cli.deciding import DecidingOptions
from tombola.cli.output import RunOptions
from tombola.cli.parse import parse
from tombola.methods import method
from tombola.studies import default_options

METHODS = ("gem-miner", "imp", "snip", "random")
DENSITIES = (0.2, 0.05)
SEEDS = {"digits": 10, "fashion-mnist": 4}
"""Repetitions of each data set, of which more decide and fewer take less time; 5 of another."""


@dataclass(frozen=True)
class DemoOptions:
    """Find tickets with four methods on built-in images of digits, test whether they win, and write a report.

    A ticket is a part of a network's weights, with their starting values. It wins if it trains to the accuracy of the
    whole network ("dense") and beats its controls: tickets of the same size that should not win.
    """

    seeds: int | None = None
    """number of repetitions, each with its own randomness and search; if not given, 10 on digits, 4 on fashion-mnist"""
    out: Path = Path("runs/demo")
    """folder of the runs, the tickets and the report"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    options = parse(
        "demo",
        words,
        DemoOptions.__doc__,
        demo=DemoOptions(),
        task=default_options(words),
        deciding=DecidingOptions(),
        run=RunOptions(workers=usual_workers()),
    )
    comparison = CompareOptions(densities=DENSITIES, seeds=options.demo.seeds, out=options.demo.out)
    methods = [method(name, density=density) for name in METHODS for density in DENSITIES]
    title = f"Winning tickets of {options.task.model} on {options.task.data}"
    command = shlex.join(["tombola", "demo", *words])
    usual = SEEDS.get(options.task.data, 5)
    status = run_comparison(
        comparison, methods, options.task, options.deciding, options.run, title, command, usual=usual
    )
    if not options.run.json:
        # A checkout without an installed command is run through its script, so the lines can be copied as they are.
        tombola = "tombola" if shutil.which("tombola") else os.path.relpath(sys.argv[0])
        console().print(
            f"\nNext:\n"
            f"  open {comparison.out}/report.html in a browser\n"
            f"  {tombola} find imp --density 0.2 --out runs/mine\n"
            f"      a ticket of your own; does it win? {tombola} check runs/mine\n"
            f"  {tombola} find imp --data mine:data --model mine:Net\n"
            f"      your own data and network, in mine.py\n"
            f"  {tombola} demo --until-decided\n"
            f"      more seeds, on top of these runs, for what is undecided"
        )
    return status


def usual_workers() -> int:
    """Two processes where there are two cores and no GPU: networks this small do not fill two threads."""
    return 1 if torch.cuda.is_available() else min(2, cpu_count())
