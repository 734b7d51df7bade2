"""tombola sparsest [METHOD]: find the sparsest ticket as good as dense, or the sparsest network for the spiral."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tombola.cli.compare import publish
from tombola.cli.console import console, print_json
from tombola.cli.output import RunOptions, engine
from tombola.cli.parse import parse, seconds_of
from tombola.cli.subjects import first_words
from tombola.errors import TombolaError
from tombola.evidence import MANDATORY, measure_of
from tombola.papers.spiral import (
    RECIPE,
    Pruning,
    Search,
    pruned,
    pruned_table,
    rates_table,
    sparsest,
    whole_search,
    write_sparsest,
)
from tombola.report.prose import NOTHING, share
from tombola.studies import DENSITIES, Narrowed, default_options, make_task, method_named, narrow
from tombola.terminal_table import Column, TerminalTable
from tombola.training import Recipe


@dataclass(frozen=True)
class SparsestOptions:
    """Find the sparsest network that learns the Cubist Spiral, a data set of points in two classes.

    With a METHOD, `tombola sparsest METHOD` finds that method's sparsest ticket on your own task instead; see
    `tombola sparsest METHOD --help`. Without one, the search first reduces the widths of the layers, then removes
    single weights, and last measures hit rates: how often each small network reaches the accuracy. When
    the budget is used up, the same command continues. With --pruning, the search uses half of the budget.
    """

    accuracy: float | None = None
    """accuracy to reach on all points, as a share of 1; 0.95 if not given (the study uses 0.95 and 0.995)"""
    seeds: int | None = None
    """trainings of each network at each of six settings (two learning rates, three schedules); 20 if not given"""
    budget: str = ""
    """time after which no new training begins: 90s, 5min, 2h, … or none; 5min if not given, none with --whole"""
    whole: str = ""
    """run the study's complete search, which does not stop early: random-95, random-99.5, fixed-95 or fixed-99.5"""
    pruning: tuple[str, ...] = ()
    """methods to compare with: their tickets of the width-16 network are trained too"""
    requests: tuple[int, ...] = Pruning.requests
    """numbers of weights that the tickets of --pruning keep"""
    out: Path = Path("runs/sparsest")
    """folder of the records and the report"""


@dataclass(frozen=True)
class TicketOptions:
    """Find a method's sparsest ticket whose accuracy is within a tolerance of the whole network's ("dense").

    A ticket is a part of a network's weights, with their starting values; its density is the share that it keeps. The
    command tries all given densities, then halves the gap below the sparsest good one. It chooses on the validation
    split, and reads the test split once, for the ticket that it finds and its controls (tickets of the same size that
    should not win).
    """

    tolerance: float | None = None
    """how much worse than dense a ticket may be, in the mean over seeds: percentage points of accuracy, or for a metric
    that is no share its own unit; if not given, half a point, and else the spread of dense over seeds"""
    densities: tuple[float, ...] = DENSITIES
    """densities to try: the shares of units (weights, unless the method removes channels) to keep"""
    halvings: int = 3
    """number of times to halve the gap below the sparsest density that is within the tolerance"""
    seeds: int = 3
    """number of repetitions, each with its own randomness and search; a ticket is compared with dense of its seed"""
    controls: tuple[str, ...] = MANDATORY
    """controls that the ticket must beat; `tombola methods controls` explains them"""
    out: Path = Path("runs/sparsest")
    """folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    names, rest = first_words(words)
    if len(names) > 1:
        raise TombolaError(f"give one method, not {', '.join(names)}; to compare several, type tombola compare")
    return _ticket(names[0], words, rest) if names else _spiral(words)


def _spiral(words: Sequence[str]) -> int:
    options = parse(
        "sparsest", words, SparsestOptions.__doc__, sparsest=SparsestOptions(), recipe=_Settings(), run=RunOptions()
    )
    spiral: SparsestOptions = options.sparsest
    search, budget = _search(spiral, options.recipe.recipe), _budget(spiral)
    pruning = Pruning(spiral.pruning, spiral.requests, recipe=options.recipe.recipe)
    if options.run.country:
        raise TombolaError("the search for the sparsest network meters no energy; leave --country out")
    started = time.monotonic()
    with engine(options.run, spiral.out) as runner:
        outcome = whole_search(spiral.whole, search, runner) if spiral.whole else sparsest(search, runner)
        # The methods have all the time that the search left.
        methods = pruned(pruning, runner, started + budget - time.monotonic())
    page = write_sparsest(outcome, methods, spiral.out, command=shlex.join(["tombola", "sparsest", *words]))
    if options.run.json:
        fewest = [method.to_json(outcome.accuracy) for method in methods]
        print_json(outcome.to_json() | {"pruning": fewest, "report": str(page)})
        return 0
    terminal = console()
    terminal.print(rates_table(outcome))
    if methods:
        terminal.print(pruned_table(methods, outcome))
    terminal.print(f"{outcome.sentence[0].upper()}{outcome.sentence[1:]}.")
    if not all(outcome.ended.values()):
        terminal.print("The budget is used up: the same command continues the search, and may find a smaller network.")
    if left := sum(method.left for method in methods):
        terminal.print(f"There was no time for {left:,} tickets: the same command goes on with them.")
    terminal.print(f"\nReport: {page}")
    return 0


def _search(options: SparsestOptions, recipe: Recipe) -> Search:
    """The search that the options ask for; TombolaError for an option that a search of the study fixes itself."""
    if options.whole and (options.accuracy is not None or options.seeds is not None):
        raise TombolaError("--whole has the study's accuracy and one seed; leave --accuracy and --seeds out")
    accuracy = Search.accuracy if options.accuracy is None else options.accuracy
    seeds = Search.seeds if options.seeds is None else options.seeds
    return Search(accuracy, seeds, _budget(options) / (2 if options.pruning else 1), recipe=recipe)


def _budget(options: SparsestOptions) -> float:
    """The seconds after which nothing new begins."""
    return seconds_of(options.budget or ("none" if options.whole else "5min"))


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
    ticket: TicketOptions = options.ticket
    if ticket.tolerance is not None and ticket.tolerance < 0:
        raise TombolaError(f"the tolerance is {ticket.tolerance:g}; give points of accuracy, 0 or more, as 0.5")
    task = make_task(options.task)
    with engine(options.run, ticket.out) as runner:
        outcome = narrow(
            task,
            method,
            runner,
            tolerance=None if ticket.tolerance is None else ticket.tolerance / measure_of(task, []).scale,
            densities=ticket.densities,
            halvings=ticket.halvings,
            seeds=ticket.seeds,
            controls=ticket.controls,
        )
    if not options.run.json:
        console().print(_densities_table(outcome))
        console().print(f"{outcome.sentence[0].upper()}{outcome.sentence[1:]}.")
    if outcome.study is None:
        if options.run.json:
            print_json(outcome.to_json())
        return 0
    title = f"The sparsest ticket of {name} within {outcome.measure.limit(outcome.tolerance)} on {options.task.data}"
    command = shlex.join(["tombola", "sparsest", *words])
    labels = dict(task.labels) | {"answer": outcome.sentence}
    return publish(outcome.study, ticket.out, title, command, labels, options.run.json, outcome.to_json())


def _densities_table(outcome: Narrowed) -> TerminalTable:
    """Every density that was tried, the densest first."""
    table = TerminalTable(
        (Column("density"), Column("mean"), Column("each seed", left=True, least=16), Column("within")),
        title=f"{outcome.method}: ticket minus dense, {outcome.measure.unit} on the validation split",
    )
    for point in sorted(outcome.points, key=lambda point: -point.density):
        if point.mean is None:
            table.add(share(point.density), NOTHING, f"cannot be had: {point.why}", "no")
            continue
        each = ", ".join(map(outcome.measure.signed, point.differences))
        table.add(share(point.density), outcome.measure.signed(point.mean), each, "yes" if point.within else "no")
    return table
