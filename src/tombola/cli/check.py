"""tombola check TICKET|METHOD: test whether a ticket wins."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tombola.cli.compare import publish
from tombola.cli.console import console
from tombola.cli.deciding import DecidingOptions
from tombola.cli.explain import explain
from tombola.cli.output import RunOptions, engine
from tombola.cli.parse import parse
from tombola.cli.subjects import first_word, is_ticket, options_of, ticket_at
from tombola.cli.targets import TargetOptions
from tombola.evidence import MANDATORY
from tombola.methods import Method
from tombola.report import stability_section
from tombola.studies import at_size, compare, default_options, make_task, method_named
from tombola.tickets import Ticket


@dataclass(frozen=True)
class CheckOptions:
    """Test whether a ticket wins.

    A ticket is a part of a network's weights, with their starting values. It wins if it trains to the accuracy of the
    whole network ("dense") and beats each control: a ticket of the same size that should not win. The command trains
    all of them once for each seed and writes a report. A saved ticket stays the same and only the data order changes
    with the seed; a method searches for a new ticket with each seed.
    """

    density: float | None = None
    """share of units (weights, unless the method removes channels) to keep; a method's own if not given"""
    remove: int | None = None
    """number of blocks to remove, for a method that removes whole blocks; its own if not given"""
    seeds: int | None = None
    """number of repetitions, each with its own randomness; 5 if not given"""
    controls: tuple[str, ...] = MANDATORY
    """controls that the ticket must beat; `tombola methods controls` explains them"""
    margin: float | None = None
    """difference in the metric that is too small to matter, in its own unit; if not given, 0.005 of a share such as
    accuracy (half a point), and for other metrics the spread of the dense network's over its seeds"""
    explain: bool = False
    """where it does not win, measure whether training is stable from where it starts, and from where it is"""
    out: Path = Path("runs/check")
    """folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    name, rest = first_word(words, "tombola check TICKET|METHOD")
    subject: Ticket | Method | None = None
    task_options = default_options(rest)
    if name == "--help":
        rest = ["--help"]
    elif is_ticket(name):
        subject = ticket_at(name)
        task_options = options_of(subject, rest)
    else:
        subject = method_named(name)
    options = parse(
        "check TICKET|METHOD",
        rest,
        CheckOptions.__doc__,
        check=CheckOptions(),
        task=task_options,
        target=TargetOptions(),
        deciding=DecidingOptions(),
        run=RunOptions(),
    )
    check = options.check
    options.target.check(rest, "--density", "--remove")
    assert subject is not None  # With --help, `parse` has ended the command.
    if not isinstance(subject, Ticket):
        subject = at_size(subject, check.density, check.remove)
    task = make_task(options.task)
    with engine(options.run, check.out) as runner:
        how, targets = options.deciding.arguments(check.seeds, usual=5), options.target.arguments()
        study = compare(task, [subject], controls=check.controls, margin=check.margin, engine=runner, **how, **targets)
        why = None
        if check.explain and any(verdict.wins is not True for verdict in study.verdicts):
            folder, show = check.out / "stability", not options.run.json
            why = explain(task, subject, name, words[1:], runner, folder, show)
            study = replace(study, sections=(*study.sections, stability_section(why.found, str(why))))
    title = f"Does {name} win on {options.task.data}?"
    command = shlex.join(["tombola", "check", *words])
    more = {} if why is None else why.to_json()
    status = publish(study, check.out, title, command, dict(task.labels), options.run.json, more)
    if why is not None and not options.run.json:
        console().print(str(why))
    return status
