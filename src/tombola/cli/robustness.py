"""tombola robustness TICKET|METHOD…: test tickets on attacked, corrupted and foreign images."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tombola.cli.compare import publish
from tombola.cli.output import RunOptions, engine
from tombola.cli.parse import parse
from tombola.cli.subjects import first_words, is_ticket, options_of, ticket_at
from tombola.errors import TombolaError
from tombola.methods import Method
from tombola.robust import Robustness
from tombola.studies import at_sizes, compare, default_options, make_task, method_named
from tombola.tickets import Ticket

HELD_OUT = 2


@dataclass(frozen=True)
class RobustnessOptions:
    """Test whether tickets are as robust as the whole network ("dense").

    A ticket is a part of a network's weights, with their starting values. The command trains the tickets, the dense
    network and controls (tickets of the same size that should not win) with each seed. It measures their accuracy on
    attacked and corrupted images, and whether they tell foreign images from those of the data. For methods, two
    classes are held out of training as foreign images that resemble the data (--hold-out); a saved ticket keeps its
    own task.
    """

    densities: tuple[float, ...] = (0.2,)
    """shares of units (weights, unless a method removes channels) that methods keep"""
    remove: tuple[int, ...] = (1,)
    """numbers of blocks to remove, for methods that remove whole blocks"""
    seeds: int = 5
    """number of repetitions, each with its own randomness"""
    controls: tuple[str, ...] = ("random",)
    """controls to test beside the ticket and dense; `tombola methods controls` explains them"""
    out: Path = Path("runs/robustness")
    """folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    names, rest = first_words(words)
    if not names and rest[:1] not in (["--help"], ["-h"]):
        raise TombolaError(
            "name tickets or methods: tombola robustness TICKET|METHOD…, as tombola robustness layer-grasp --remove 3"
        )
    tickets = [ticket_at(name) for name in names if is_ticket(name)]
    methods = [method_named(name) for name in names if not is_ticket(name)]
    if any(ticket.provenance.task != tickets[0].provenance.task for ticket in tickets) or (tickets and methods):
        raise TombolaError(
            "tickets of one task can be tried together, or methods; give neither both nor tickets of several tasks"
        )
    task_options = options_of(tickets[0], rest) if tickets else replace(default_options(rest), hold_out=HELD_OUT)
    options = parse(
        "robustness TICKET|METHOD…",
        rest,
        RobustnessOptions.__doc__,
        comparison=RobustnessOptions(),
        robustness=Robustness(),
        task=task_options,
        run=RunOptions(),
    )
    comparison, task = options.comparison, make_task(options.task)
    subjects: list[Ticket | Method] = [
        *tickets,
        *(sized for method in methods for sized in at_sizes(method, comparison.densities, comparison.remove)),
    ]
    with engine(options.run, comparison.out) as runner:
        study = compare(
            task,
            subjects,
            seeds=comparison.seeds,
            controls=comparison.controls,
            robustness=options.robustness,
            engine=runner,
        )
    title = f"How robust are {', '.join(names)} on {options.task.data}?"
    command = shlex.join(["tombola", "robustness", *words])
    return publish(study, comparison.out, title, command, dict(task.labels), options.run.json)
