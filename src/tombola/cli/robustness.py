"""tombola robustness TICKET|METHOD…: are tickets as robust as the dense network?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tombola.cli.compare import at_sizes, publish
from tombola.cli.output import RunOptions, engine
from tombola.cli.parse import parse
from tombola.cli.subjects import first_words, is_ticket, method_named, options_of, ticket_at
from tombola.errors import TombolaError
from tombola.methods import Method
from tombola.robust import Robustness
from tombola.studies import compare, default_options, make_task
from tombola.tickets import Ticket

HELD_OUT = 2


@dataclass(frozen=True)
class RobustnessOptions:
    """Train tickets, dense and controls, and try them on attacked, corrupted and foreign images, paired over seeds.

    Unless a ticket's file says what its task is, two classes are held out of training (--hold-out), as foreign images
    that are near.
    """

    densities: tuple[float, ...] = (0.2,)
    """shares of weights to keep, for methods"""
    remove: tuple[int, ...] = (1,)
    """for methods that remove whole blocks: how many"""
    seeds: int = 5
    """how many seeds"""
    controls: tuple[str, ...] = ("random",)
    """what is tried beside ticket and dense"""
    out: Path = Path("runs/robustness")
    """the folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
    names, rest = first_words(words)
    if not names and rest[:1] not in (["--help"], ["-h"]):
        raise TombolaError("say what: tombola robustness TICKET|METHOD…, as tombola robustness layer-grasp --remove 3")
    tickets = [ticket_at(name) for name in names if is_ticket(name)]
    methods = [method_named(name) for name in names if not is_ticket(name)]
    if len({tuple(ticket.provenance.task.items()) for ticket in tickets}) > 1 or (tickets and methods):
        raise TombolaError("tickets of one task can be tried together, or methods; not both, and not of several tasks")
    task_options = options_of(tickets[0], rest) if tickets else replace(default_options(rest), hold_out=HELD_OUT)
    options = parse(
        "robustness",
        rest,
        RobustnessOptions.__doc__,
        tried=RobustnessOptions(),
        robustness=Robustness(),
        task=task_options,
        run=RunOptions(),
    )
    own, task = options.tried, make_task(options.task)
    subjects: list[Ticket | Method] = [
        *tickets,
        *(sized for method in methods for sized in at_sizes(method, own.densities, own.remove)),
    ]
    with engine(options.run, own.out) as running:
        done = compare(
            task, subjects, seeds=own.seeds, controls=own.controls, robustness=options.robustness, engine=running
        )
    title = f"How robust are {', '.join(names)} on {options.task.data}?"
    return publish(
        done, own.out, title, shlex.join(["tombola", "robustness", *words]), dict(task.labels), options.run.json
    )
