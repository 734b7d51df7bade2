"""tombola sanity METHOD…: test whether a method's search uses its data, labels and weights."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from tombola.cli.compare import publish
from tombola.cli.output import RunOptions, engine
from tombola.cli.parse import parse
from tombola.cli.subjects import first_words
from tombola.errors import TombolaError
from tombola.evidence import CHECKS
from tombola.studies import at_sizes, default_options, make_task, method_named, sanity

LATER = "later scores the network after one epoch, later@500it after 500 steps; all that apply if none is given"


@dataclass(frozen=True)
class SanityOptions:
    """Test whether a method's search uses what it is given: its data, its labels and its weights.

    A ticket is a part of a network's weights, with their starting values. Each check destroys one thing that the
    search should use, as by shuffling the labels, and compares the ticket with what comes out. The method passes a
    check if its ticket is better; if not, its search does not need what was destroyed.
    """

    densities: tuple[float, ...] = (0.05,)
    """densities to test: the shares of units (weights, unless a method removes channels) to keep"""
    remove: tuple[int, ...] = (1,)
    """numbers of blocks to remove, for methods that remove whole blocks"""
    seeds: int = 3
    """number of repetitions, each with its own randomness and search"""
    checks: Annotated[tuple[str, ...], arg(help=f"checks to make: {', '.join(CHECKS)}; {LATER}")] = ()
    margin: float | None = None
    """difference in the metric that is too small to matter, in its own unit; if not given, 0.005 of a share such as
    accuracy (half a point), and for other metrics the spread of the dense network's over its seeds"""
    better: Literal["", "lower", "higher"] = ""
    """which values of the task's metric are better; if not given, of a metric of yours what its name says"""
    out: Path = Path("runs/sanity")
    """folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    names, rest = first_words(words)
    if not names and rest[:1] not in (["--help"], ["-h"]):
        raise TombolaError("name the methods: tombola sanity METHOD…, as tombola sanity snip grasp imp")
    presets = [method_named(name) for name in names]
    options = parse(
        "sanity METHOD…",
        rest,
        SanityOptions.__doc__,
        checks=SanityOptions(),
        task=default_options(rest),
        run=RunOptions(),
    )
    checks, task = options.checks, make_task(options.task)
    methods = [sized for method in presets for sized in at_sizes(method, checks.densities, checks.remove)]
    with engine(options.run, checks.out) as runner:
        study = sanity(
            task,
            methods,
            checks=checks.checks,
            seeds=checks.seeds,
            margin=checks.margin,
            measure=checks.better or None,
            engine=runner,
        )
    title = f"What do {', '.join(names)} look at on {options.task.data}?"
    command = shlex.join(["tombola", "sanity", *words])
    return publish(study, checks.out, title, command, dict(task.labels), options.run.json)
