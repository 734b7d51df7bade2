"""tombola transfer TICKET --to-seed N: move a ticket to another initialisation by matching units."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from tombola.cli import transfer_data
from tombola.cli.compare import answer, show, written
from tombola.cli.console import console, print_json, strict_line
from tombola.cli.output import RunOptions, dense_epochs, engine, refuse_foreign, work
from tombola.cli.parse import parse
from tombola.cli.subjects import first_word, is_ticket, options_of, ticket_at
from tombola.connectivity import Transfer, transfer
from tombola.connectivity.lines import POINTS
from tombola.connectivity.matching import By
from tombola.errors import TombolaError
from tombola.evidence import MANDATORY
from tombola.files import held, write_atomically
from tombola.studies import TaskOptions, compare, default_options, make_task
from tombola.terminal_table import Column, TerminalTable
from tombola.training import Run, bars, chosen_device


@dataclass(frozen=True)
class TransferOptions:
    """Move a saved ticket to another initialisation, to the units there that do what its own units do.

    The dense network is trained from both initialisations. Units of the two that act alike are matched, and the mask
    moves with them. The moved ticket starts from the other initialisation, or from the step of its dense training to
    which the ticket rewinds. With --seeds it is trained beside the mask that did not move, dense and the controls.
    Stopped or killed, the same command goes on where it was.

    With --to-data NAME… instead, tickets are carried to other tasks, with a new head (tombola transfer TICKET…
    --to-data digits --help).
    """

    to_seed: int | None = None
    """seed of the other initialisation"""
    by: By = "activations"
    """how units are matched: by what they do on data, or by the weights that they are connected to"""
    points: int = POINTS
    """points of the lines between the two dense networks, both ends among them"""
    seeds: int = 0
    """number of seeds with which the ticket is tested there; 0 only moves it"""
    controls: tuple[str, ...] = MANDATORY
    """with --seeds, the controls that it must beat; `tombola methods controls` explains them"""
    out: Path = Path("runs/transfer")
    """folder of the trainings, the tickets and the report"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    if any(word.partition("=")[0] in ("--to-data", "--to_data") for word in words):
        return transfer_data.run(words)
    name, rest = first_word(words, "tombola transfer TICKET --to-seed N, or TICKET… --to-data NAME…")
    ticket, task_options = None, default_options(rest)
    if name == "--help":
        rest = ["--help"]
    elif not is_ticket(name):
        raise TombolaError(f"'{name}' is no ticket; find one and give its file: tombola find {shlex.quote(name)}")
    else:
        ticket = ticket_at(name)
        task_options = options_of(ticket, rest)
    options = parse(
        "transfer TICKET",
        rest,
        TransferOptions.__doc__,
        transfer=TransferOptions(),
        task=task_options,
        run=RunOptions(),
    )
    asked: TransferOptions = options.transfer
    assert ticket is not None  # With --help, `parse` has ended the command.
    if asked.to_seed is None:
        raise TombolaError(
            "say where it goes: to another initialisation, as --to-seed 1; or to other data, as --to-data digits"
        )
    if asked.seeds < 0:
        raise TombolaError(f"seeds is {asked.seeds}; give how often it is tested there, or 0")
    task = make_task(options.task)
    device = chosen_device(options.run.device)
    refuse_foreign(asked.out)
    with bars(not options.run.json) as progress, held(asked.out) as lease:
        whole = Run(0, asked.out, device, progress, meter=options.run.meter, lease=lease)
        if options.run.fresh:
            whole.clear()
        found = transfer(task, ticket, asked.to_seed, by=asked.by, points=asked.points, run=whole)
        lease.check()
        for kind, own in (("ticket", found.ticket), ("unmatched", found.unmatched)):
            own.save(asked.out / f"{kind}.safetensors")
        facts = {"transferred": found.ticket.digest, **_facts(found, asked.out)}
        write_atomically(asked.out / "transfer.json", strict_line(facts) + "\n")
    if not options.run.json:
        _show(found, asked.out)
    if asked.seeds:
        _test(found, asked, options.task, options.run, words, facts)
    elif options.run.json:
        print_json(facts)
    else:
        ticket_path = shlex.quote(str(asked.out / "ticket.safetensors"))
        console().print(f"Does it win there? tombola check {ticket_path}, or --seeds 5 here")
    return 0


def _test(
    found: Transfer,
    asked: TransferOptions,
    task_options: TaskOptions,
    run_options: RunOptions,
    words: Sequence[str],
    facts: dict[str, Any],
) -> None:
    """Train the moved ticket and the mask that did not move beside dense and controls, and write the report."""
    task = make_task(task_options)
    subjects = {"matched": found.ticket, "unmatched": found.unmatched}
    if found.ticket.digest == found.unmatched.digest:
        subjects.pop("unmatched")
    with engine(run_options, asked.out) as runner:
        study = compare(task, subjects, seeds=asked.seeds, controls=asked.controls, engine=runner)
    title, command = f"Does the ticket win from seed {asked.to_seed}?", shlex.join(["tombola", "transfer", *words])
    study, page = written(study, asked.out, title, command, dict(task.labels))
    if run_options.json:
        print_json({**facts, **answer(study, page)})
    else:
        show(study, page)


def _facts(found: Transfer, out: Path) -> dict[str, Any]:
    matching = found.matching
    units = {
        own.name: {
            "units": own.units,
            "likeness": matching.likeness.get(own.name),
            "before": matching.before.get(own.name),
        }
        for own in matching.symmetries.found
    }
    barriers = {kind: line.barrier for kind, line in zip(("unmatched", "matched"), found.lines, strict=True)}
    return {
        "sentence": found.sentence,
        "ticket": str(out / "ticket.safetensors"),
        "unmatched": str(out / "unmatched.safetensors"),
        "seeds": found.seeds,
        "by": matching.by,
        "moved": matching.moved,
        "iou": found.iou,
        "kept": found.ticket.mask.counts,
        "units": units,
        "fixed": dict(matching.symmetries.fixed),
        "barriers": barriers,
        "lines": {kind: asdict(line) for kind, line in zip(barriers, found.lines, strict=True)},
        "cost": asdict(found.cost),
    }


def _show(found: Transfer, out: Path) -> None:
    matching, terminal = found.matching, console()
    columns = (Column("units of", left=True, least=16), Column("units", drop=2), Column("alike before", drop=1))
    table = TerminalTable((*columns, Column("alike matched")))
    for own in matching.symmetries.found:
        likeness, before = (part.get(own.name) for part in (matching.likeness, matching.before))
        shown = ("by weights" if value is None else f"{value:.2f}" for value in (before, likeness))
        table.add(Text(own.name), f"{own.units:,}", *shown)
    terminal.print(table)
    terminal.print(found.sentence)
    terminal.print(f"{found.iou:.1%} of the mask's positions stay (intersection over union).")
    terminal.print(f"This cost {dense_epochs(found.cost.dense_epochs)}, {work(asdict(found.cost))}.")
    terminal.print(f"Ticket: {out / 'ticket.safetensors'}; with the mask as it was: {out / 'unmatched.safetensors'}")
