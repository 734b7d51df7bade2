"""tombola stability METHOD|TICKET|dense: measure from which points training is stable."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.text import Text

from tombola.cli.console import console, print_json, strict_line
from tombola.cli.output import RunOptions, dense_epochs, refuse_foreign, work
from tombola.cli.parse import parse
from tombola.cli.subjects import first_word, is_ticket, options_of, ticket_at
from tombola.connectivity import Landscape, Stability, landscape, solutions, stability
from tombola.connectivity.instability import LIMIT
from tombola.connectivity.lines import POINTS
from tombola.errors import TombolaError
from tombola.files import held, write_atomically
from tombola.methods import Method
from tombola.report import landscape_section, stability_section, write_report
from tombola.studies import at_size, default_options, make_task, method_named
from tombola.terminal_table import Column, TerminalTable
from tombola.tickets import Ticket
from tombola.training import Run, bars, chosen_device

TITLE = "Is training stable?"


@dataclass(frozen=True)
class StabilityOptions:
    """Measure from which points training is stable: whether copies in different data orders end in one linear basin.

    Copies train from each point. The error on the straight line between two of them shows a barrier, or none. A ticket
    that does not win often wins once it is rewound to a point from which training is stable. Stopped or killed, the
    same command goes on where it was.
    """

    at: tuple[str, ...] = ()
    """points of dense training, as 0it, 500it or 1ep; if not given, a ticket's own start, else the initialisation"""
    inits: int = 1
    """number of initialisations; a saved ticket has one"""
    orders: int = 2
    """number of copies from each point; each two are a pair"""
    earliest: bool = False
    """look for the earliest stable point by bisection"""
    points: int = POINTS
    """points of a line, both ends among them"""
    splits: tuple[Literal["train", "validation", "test"], ...] = ("test",)
    """what the lines are measured on; the first one decides"""
    limit: float = LIMIT
    """from this barrier on, training is not stable; a share of 1 for accuracy"""
    density: float | None = None
    """share of units that a method keeps; its own if not given"""
    remove: int | None = None
    """number of blocks to remove, for a method that removes whole blocks; its own if not given"""
    solutions: bool = False
    """also measure how the solutions of a search lie to each other: of its rounds, of the ticket, and the dense one"""
    seed: int = 0
    """of the first initialisation"""
    out: Path = Path("runs/stability")
    """folder of the trainings, the result, the report and its pictures"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    name, rest = first_word(words, "tombola stability METHOD|TICKET|dense")
    if name == "--help":
        rest, name = ["--help"], "dense"
    subject: Ticket | Method | None = None
    task_options = default_options(rest)
    if is_ticket(name):
        subject = ticket_at(name)
        task_options = options_of(subject, rest)
    elif name != "dense":
        subject = method_named(name)
    options = parse(
        "stability METHOD|TICKET|dense",
        rest,
        StabilityOptions.__doc__,
        stability=StabilityOptions(),
        task=task_options,
        run=RunOptions(),
    )
    asked: StabilityOptions = options.stability
    if options.run.workers != 1:
        raise TombolaError("copies train at once in one process; leave out --workers")
    if subject is not None and not isinstance(subject, Ticket):
        subject = at_size(subject, asked.density, asked.remove)
    if asked.solutions and subject is None:
        raise TombolaError("dense has no search whose solutions could be compared; give a method or a ticket")
    task = make_task(options.task)
    device = chosen_device(options.run.device)
    refuse_foreign(asked.out)
    with bars(not options.run.json) as progress, held(asked.out) as lease:
        whole = Run(asked.seed, asked.out, device, progress, meter=options.run.meter, lease=lease)
        if options.run.fresh:
            whole.clear()
        found = stability(
            task,
            subject,
            at=asked.at or None,
            inits=asked.inits,
            orders=asked.orders,
            earliest=asked.earliest,
            points=asked.points,
            splits=asked.splits,
            limit=asked.limit,
            seed=asked.seed,
            run=whole,
        )
        lying = None
        if asked.solutions:
            assert subject is not None
            networks = solutions(task, subject, seed=asked.seed, run=whole)
            lying = landscape(task, networks, points=asked.points, split=asked.splits[0], shown=progress)
        lease.check()
        content = {"subject": found.subject, **_facts(found), **({"solutions": asdict(lying)} if lying else {})}
        write_atomically(asked.out / "stability.json", strict_line(content) + "\n")
        page = _write_report(found, lying, asked.out, shlex.join(["tombola", "stability", *words]), dict(task.labels))
    if options.run.json:
        print_json(content)
        return 0
    out = console()
    out.print(_table(found))
    out.print(str(found))
    out.print(f"This cost {dense_epochs(found.cost.dense_epochs)}, {work(asdict(found.cost))}.")
    if lying is not None:
        out.print(_landscape_table(lying))
        out.print(lying.sentence)
    out.print(f"Report: {page}; lines: {asked.out / 'stability.svg'}; all figures: {asked.out / 'stability.json'}")
    return 0


def _write_report(found: Stability, lying: Landscape | None, out: Path, command: str, labels: dict[str, str]) -> Path:
    sections = [stability_section(found), *([] if lying is None else [landscape_section(lying)])]
    for section in sections:
        for picture in section.pictures.values():
            write_atomically(out / f"{section.key}.svg", picture)
    return write_report(
        [], [], out, title=TITLE, command=command, task=labels, sections=sections, page="stability.html"
    )


def _landscape_table(found: Landscape) -> TerminalTable:
    """The barriers between solutions, of shares in points, and behind a slash their angles in degrees."""
    others = (Column(name, drop=place) for place, name in enumerate(found.names))
    table = TerminalTable((Column("barrier / angle", left=True, least=16), *others))
    for name, barriers, angles in zip(found.names, found.barriers, found.angles, strict=True):
        cells = zip(found.names, barriers, angles, strict=True)
        table.add(
            Text(name),
            *("" if own == name else f"{found.measure.scale * b:.2g} / {90 * a:.0f}°" for own, b, a in cells),
        )
    return table


def _facts(found: Stability) -> dict[str, Any]:
    points = [
        {
            **asdict(point),
            "barrier": point.barrier,
            "barriers": point.barriers,
            "loss_barriers": point.loss_barriers,
            "stable": point.stable,
        }
        for point in found.points
    ]
    earliest = None if found.earliest is None else found.earliest.at
    said = {"sentence": found.sentence, "notes": found.notes, "earliest": earliest}
    return {**said, "points": points, "cost": asdict(found.cost)}


def _table(found: Stability) -> TerminalTable:
    barriers = [Column(f"barrier,\n{kind}", drop=place) for place, kind in enumerate(found.points[0].barriers)]
    further = (Column("of the\nloss", drop=10), Column("apart\n÷ way", drop=13), Column("angle", drop=12))
    table = TerminalTable(
        (Column("from", left=True), Column("training is", left=True), *barriers, *further, Column("pairs", drop=11))
    )
    for point in found.points:
        pairs = point.pairs
        way = sum(own.travelled for own in pairs)
        table.add(
            point.at,
            "stable" if point.stable else "not stable",
            *(point.measure.amount(value).replace(" points", " %") for value in point.barriers.values()),
            f"{next(iter(point.loss_barriers.values())):.3g}",
            f"{sum(own.distance for own in pairs) / way:.2f}" if way else "-",
            f"{90 * sum(own.angle for own in pairs) / len(pairs):.0f}°",
            str(len(pairs)),
        )
    return table
