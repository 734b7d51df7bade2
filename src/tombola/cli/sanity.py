"""tombola sanity METHOD…: does a search use what it is given?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from tombola.cli.compare import at_sizes, publish
from tombola.cli.output import RunOptions, engine
from tombola.cli.parse import parse
from tombola.cli.subjects import first_words, method_named
from tombola.errors import TombolaError
from tombola.evidence import CHECKS, MARGIN
from tombola.studies import default_options, make_task, sanity

LATER = "later is after an epoch, later@500it and later@3ep elsewhere; if none is named, all that apply to the method"


@dataclass(frozen=True)
class SanityOptions:
    """Destroy what a search should have used, one thing a check, and see whether its tickets are worse for it."""

    densities: tuple[float, ...] = (0.05,)
    """shares of weights to keep"""
    remove: tuple[int, ...] = (1,)
    """for methods that remove whole blocks: how many"""
    seeds: int = 3
    """how many seeds, each with its own search"""
    checks: Annotated[tuple[str, ...], arg(help=f"{', '.join(CHECKS)}; {LATER}")] = ()
    margin: float = MARGIN
    """the difference in accuracy that counts as none"""
    out: Path = Path("runs/sanity")
    """the folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
    names, rest = first_words(words)
    if not names and rest[:1] not in (["--help"], ["-h"]):
        raise TombolaError("say which methods: tombola sanity METHOD…, as tombola sanity snip grasp imp")
    presets = [method_named(name) for name in names]
    options = parse(
        "sanity", rest, SanityOptions.__doc__, sanity=SanityOptions(), task=default_options(rest), run=RunOptions()
    )
    own, task = options.sanity, make_task(options.task)
    methods = [sized for method in presets for sized in at_sizes(method, own.densities, own.remove)]
    with engine(options.run, own.out) as running:
        done = sanity(task, methods, checks=own.checks, seeds=own.seeds, margin=own.margin, engine=running)
    title = f"What do {', '.join(names)} look at on {options.task.data}?"
    return publish(done, own.out, title, shlex.join(["tombola", "sanity", *words]), dict(task.labels), options.run.json)
