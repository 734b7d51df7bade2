"""tombola check TICKET|METHOD: does it win?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tombola.cli.compare import publish
from tombola.cli.output import RunOptions, engine
from tombola.cli.parse import parse
from tombola.cli.subjects import at_size, first_word, is_ticket, method_named, options_of, ticket_at
from tombola.evidence import MANDATORY, MARGIN
from tombola.methods import Method
from tombola.studies import compare, default_options, make_task
from tombola.tickets import Ticket


@dataclass(frozen=True)
class CheckOptions:
    """Does it win? A ticket is trained with other data orders, a method's searched anew; with dense and controls."""

    density: float | None = None
    """for a method: the share of weights to keep"""
    remove: int | None = None
    """for a method that removes whole blocks: how many"""
    seeds: int = 5
    """how many seeds"""
    controls: tuple[str, ...] = MANDATORY
    """what it must beat"""
    margin: float = MARGIN
    """the difference in accuracy that counts as none"""
    out: Path = Path("runs/check")
    """the folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
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
    options = parse("check", rest, CheckOptions.__doc__, check=CheckOptions(), task=task_options, run=RunOptions())
    own = options.check
    assert subject is not None
    if not isinstance(subject, Ticket):
        subject = at_size(subject, own.density, own.remove)
    task = make_task(options.task)
    with engine(options.run, own.out) as running:
        done = compare(task, [subject], seeds=own.seeds, controls=own.controls, margin=own.margin, engine=running)
    title = f"Does {name} win on {options.task.data}?"
    return publish(done, own.out, title, shlex.join(["tombola", "check", *words]), dict(task.labels), options.run.json)
