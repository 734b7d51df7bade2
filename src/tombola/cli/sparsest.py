"""tombola sparsest [METHOD]: the sparsest network that learns the spiral, or the sparsest ticket as good as dense."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tombola.cli.compare import publish
from tombola.cli.console import console, print_json
from tombola.cli.output import RunOptions, engine
from tombola.cli.parse import parse
from tombola.cli.subjects import first_words, method_named
from tombola.errors import TombolaError
from tombola.evidence import MANDATORY
from tombola.papers.spiral import (
    RECIPE,
    Pruning,
    Search,
    pruned,
    pruned_table,
    rates_table,
    seconds_of,
    sparsest,
    whole_search,
    write_sparsest,
)
from tombola.report.prose import NOTHING, points, share
from tombola.studies import DENSITIES, Narrowed, default_options, make_task, narrow
from tombola.training import Recipe


@dataclass(frozen=True)
class SparsestOptions:
    """Find the sparsest network that learns the Cubist Spiral: widths first, then single weights, then hit rates.

    With a METHOD before the options: the sparsest ticket of it within a tolerance of dense on your own task; that has a
    --help of its own.
    """

    accuracy: float | None = None
    """to reach on all points, 0.95 if not given; the study asks for 0.95 and 0.995"""
    seeds: int | None = None
    """how often each structure is tried, 20 if not given, at each of six settings: two learning rates with three
    schedules"""
    budget: str = ""
    """after which nothing new is begun, as 90s, 5min or 2h, or none; 5min if not given, none with --whole; the same
    command goes on where it was; with --pruning half of it is the search's"""
    whole: str = ""
    """the study's own search in full, without stopping: random-95, random-99.5, fixed-95 or fixed-99.5"""
    pruning: tuple[str, ...] = ()
    """methods whose tickets of the width-16 network are trained as well, to see how many weights they need"""
    requests: tuple[int, ...] = Pruning.requests
    """numbers of weights that --pruning asks of each method"""
    out: Path = Path("runs/sparsest")
    """the folder of the records and the report"""


@dataclass(frozen=True)
class TicketOptions:
    """Find the sparsest ticket of a method within a tolerance of dense: a grid of densities, then bisection.

    Densities are chosen on the validation split; the test split is read once, for the ticket found with its controls.
    """

    tolerance: float = 0.5
    """points of accuracy that a ticket may be worse than dense, in the mean over seeds"""
    densities: tuple[float, ...] = DENSITIES
    """shares of weights that are all tried"""
    halvings: int = 3
    """how often the gap below the sparsest that is within the tolerance is halved"""
    seeds: int = 3
    """how many seeds, each with its own search; tickets and dense are paired over them"""
    controls: tuple[str, ...] = MANDATORY
    """what the ticket found must beat"""
    out: Path = Path("runs/sparsest")
    """the folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
    names, rest = first_words(words)
    if len(names) > 1:
        raise TombolaError(f"give one method, not {', '.join(names)}; tombola compare sets several against each other")
    return _ticket(names[0], words, rest) if names else _spiral(words)


def _spiral(words: Sequence[str]) -> int:
    options = parse(
        "sparsest", words, SparsestOptions.__doc__, sparsest=SparsestOptions(), recipe=_Settings(), run=RunOptions()
    )
    own: SparsestOptions = options.sparsest
    search, budget = _search(own, options.recipe.recipe), _seconds(own)
    grid = Pruning(own.pruning, own.requests, recipe=options.recipe.recipe)
    if options.run.country:
        raise TombolaError("the search for the sparsest network meters no energy; leave --country out")
    started = time.monotonic()
    with engine(options.run, own.out) as running:
        done = whole_search(own.whole, search, running) if own.whole else sparsest(search, running)
        others = pruned(grid, running, started + budget - time.monotonic())
    page = write_sparsest(done, others, own.out, command=shlex.join(["tombola", "sparsest", *words]))
    if options.run.json:
        fewest = [found.to_json(done.accuracy) for found in others]
        print_json(done.to_json() | {"pruning": fewest, "report": str(page)})
        return 0
    to = console()
    to.print(rates_table(done))
    if others:
        to.print(pruned_table(others, done))
    to.print(f"{done.sentence[0].upper()}{done.sentence[1:]}.")
    if not all(done.ended.values()):
        to.print("The budget is used up: the same command goes on where it was, and may find a smaller one.")
    if left := sum(own.left for own in others):
        to.print(f"There was no time for {left:,} tickets: the same command goes on with them.")
    to.print(f"\nReport: {page}")
    return 0


def _search(own: SparsestOptions, recipe: Recipe) -> Search:
    """The search that is asked for; TombolaError for what the study's own searches do not leave open."""
    if own.whole and (own.accuracy is not None or own.seeds is not None):
        raise TombolaError("--whole has the study's accuracy and one seed; leave --accuracy and --seeds out")
    accuracy = Search.accuracy if own.accuracy is None else own.accuracy
    seeds = Search.seeds if own.seeds is None else own.seeds
    return Search(accuracy, seeds, _seconds(own) / (2 if own.pruning else 1), recipe=recipe)


def _seconds(own: SparsestOptions) -> float:
    return seconds_of(own.budget or ("none" if own.whole else "5min"))


@dataclass(frozen=True)
class _Settings:
    """How each network is trained."""

    recipe: Recipe = RECIPE


def _ticket(name: str, words: Sequence[str], rest: Sequence[str]) -> int:
    method = method_named(name)
    options = parse(
        f"sparsest {name}",
        rest,
        TicketOptions.__doc__,
        ticket=TicketOptions(),
        task=default_options(rest),
        run=RunOptions(),
    )
    own: TicketOptions = options.ticket
    if own.tolerance < 0:
        raise TombolaError(f"the tolerance is {own.tolerance:g}; give points of accuracy, 0 or more, as 0.5")
    task = make_task(options.task)
    with engine(options.run, own.out) as running:
        found = narrow(
            task,
            method,
            running,
            tolerance=own.tolerance / 100,
            densities=own.densities,
            halvings=own.halvings,
            seeds=own.seeds,
            controls=own.controls,
        )
    if not options.run.json:
        console().print(_tried(found))
        console().print(f"{found.sentence[0].upper()}{found.sentence[1:]}.")
    if found.study is None:
        if options.run.json:
            print_json(found.to_json())
        return 0
    title = f"The sparsest ticket of {name} within {own.tolerance:g} points on {options.task.data}"
    command = shlex.join(["tombola", "sparsest", *words])
    labels = dict(task.labels) | {"answer": found.sentence}
    return publish(found.study, own.out, title, command, labels, options.run.json, found.to_json())


def _tried(found: Narrowed) -> Table:
    """Every density tried, the densest first."""
    drawn = Table(title=f"{found.method}: ticket minus dense, points on the validation split", box=SIMPLE_HEAD)
    for heading in ("density", "mean", "each seed", "within"):
        drawn.add_column(heading, justify="right")
    for point in sorted(found.points, key=lambda own: -own.density):
        if point.mean is None:
            drawn.add_row(share(point.density), NOTHING, f"cannot be had: {point.why}", "no")
            continue
        each = ", ".join(points(100 * own) for own in point.differences)
        drawn.add_row(share(point.density), points(100 * point.mean), each, "yes" if point.within else "no")
    return drawn
