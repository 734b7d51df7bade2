"""tombola find METHOD: search for a ticket."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from tombola.cli.console import console, print_json
from tombola.cli.output import RunOptions, dense_epochs, engine, work
from tombola.cli.parse import parse
from tombola.cli.subjects import first_word, settings_class, with_settings
from tombola.cli.targets import TargetOptions
from tombola.errors import TombolaError
from tombola.methods import LoFT, Method, blocks_removed, find, granularity_used, place_at_torchrun
from tombola.methods import counted as counted_of
from tombola.registry import METHODS
from tombola.report import write_search_curve
from tombola.report.prose import counted
from tombola.shrinking import check_takes_target, target_of
from tombola.structure import granularity
from tombola.studies import (
    RunFolder,
    RunSpec,
    Serial,
    Store,
    aimed,
    check_density,
    default_options,
    make_task,
    method_named,
    prepare,
    search,
)
from tombola.studies.prepared import SEARCH
from tombola.terminal_table import Column, TerminalTable
from tombola.tickets import parameters_of
from tombola.training import Run, Task, chosen_device, metric_of, metric_text


@dataclass(frozen=True)
class FindOptions:
    """Search for a ticket and write its file. Stopped or killed, the same command goes on where it was."""

    seed: int = 0
    """of the initialisation, the data order and all that is random"""
    out: Path | None = None
    """the run's own folder; without it one under runs/ named by the settings"""


def run(words: Sequence[str]) -> int:
    name, rest = first_word(words, f"tombola find METHOD, one of {', '.join(METHODS)}")
    if name == "--help":
        known = TerminalTable((Column("METHOD", left=True), Column("what it does", left=True, least=34)))
        for name, entry in METHODS.entries.items():
            known.add(name, entry.summary)
        console().print(known)
        about = f"{FindOptions.__doc__}\n\nEach method has settings of its own: tombola find METHOD --help."
        parse("find METHOD", ["--help"], about, find=FindOptions(), task=default_options([]), run=RunOptions())
    method = method_named(name)
    settings = settings_class(method)()
    about, _, _ = (settings.__doc__ or "").partition("\n\nArgs:\n")  # Each option shows its own entry.
    options = parse(
        f"find {name}",
        rest,
        f"{FindOptions.__doc__}\n\n{about}",
        method=settings,
        task=default_options(rest),
        find=FindOptions(),
        target=TargetOptions(),
        run=RunOptions(),
    )
    options.target.check(rest, "--density")
    asked = options.target.arguments()
    if target_of(asked).asked and hasattr(options.method, "granularity"):
        check_takes_target(granularity(options.method.granularity))  # n:m refuses the density that nobody gave
    task = make_task(options.task)
    method = with_settings(method, options.method)
    check_density(method.density)
    rank, processes = place_at_torchrun()
    if processes > 1 and not isinstance(method, LoFT):
        raise TombolaError(f"'{name}' searches in one process; start it without torchrun")
    if rank:
        _take_part(task, method, options)
        return 0
    with engine(options.run, Path("runs")) as own:
        method, aim = aimed(task, method, asked, own.store, own.executor, seed=options.find.seed)
        folder = RunFolder(options.find.out) if options.find.out else None
        ticket, folder = search(task, method, options.find.seed, own.store, own.executor, folder)
    whole = ticket.mask.density_of(parameters_of(task.build(options.find.seed)))
    came_to = None if aim is None else aim.to_json() | {"counted": counted_of(task, ticket, Run(options.find.seed))}
    cost, before = ticket.provenance.cost, ticket.provenance.before
    drawn = write_search_curve(folder.history(), folder.curve_path)
    if options.run.json:
        print_json(
            {
                "ticket": str(folder.ticket_path),
                "digest": ticket.digest,
                "mask_digest": ticket.mask.digest,
                "density": ticket.density,
                "network_density": whole,
                "kept": ticket.mask.counts,
                "ties": ticket.mask.ties,
                "collapsed": list(ticket.mask.collapsed),
                "removed": {group: len(units) for group, units in ticket.removed.items()},
                "before": before,
                "curve": str(folder.curve_path) if drawn else None,
                "cost": dict(cost),
            }
            | ({} if came_to is None else {"target": came_to})
        )
        return 0
    left = f"{ticket.density:.4g} of the weights left" if ticket.removed else f"density {ticket.density:.4g}"
    columns = (Column("layer", left=True, least=16), Column("kept", drop=1), Column("of", drop=2), Column("density"))
    table = TerminalTable(columns, title=f"{name}: {left}")
    for layer, kept in ticket.mask.counts.items():
        size = ticket.mask.bits[layer].size
        table.add(Text(layer), f"{kept:,}", f"{size:,}", f"{kept / size:.2%}" if kept else "nothing left")
    out = console()
    out.print(table)
    out.print(f"{ticket.density:.2%} of what may be pruned, {whole:.2%} of all parameters of the network.")
    out.print(f"The search cost {dense_epochs(cost['dense_epochs'])}, {work(cost)}.")
    if ticket.removed and (used := granularity_used(ticket.provenance.settings)):
        unit, run = used.name.partition(":")[0], Run(options.find.seed)
        units = used.units(task.build(run.seed), run.probe(task)).kept(ticket.removed)
        counted_or_found = blocks_removed(method) is not None or method.density_kind != "exact"
        asked = "" if counted_or_found else f", as density {method.density:g} asks"
        gone = units.size - units.total_kept
        out.print(
            f"{gone:,} of {counted(units.size, unit)} removed{asked}; {ticket.density:.1%} of the weights are left."
        )
    if aim is not None and came_to is not None:
        shares = (f"{came_to['counted'][name]:.1%} of the {name}" for name in ("flops", "parameters"))
        out.print(f"Target: {aim}.")
        out.print(f"The ticket that was found: {' and '.join(shares).replace('flops', 'FLOPs')} stay.")
    if before is not None:
        out.print(f"As it was found, before it trains: {metric_text(metric_of(task), before)} on the validation split.")
    if drawn:
        out.print(f"How the search went: {folder.curve_path}")
    out.print(f"Ticket: {folder.ticket_path}\nDoes it win? tombola check {shlex.quote(str(folder.ticket_path))}")
    return 0


def _take_part(task: Task, method: Method, options: Any) -> None:
    """Search along with the first process that torchrun started, which alone keeps the ticket and prints."""
    seed, store = options.find.seed, Store(Path("runs"))
    executor = Serial(chosen_device(options.run.device))
    method, _ = aimed(task, method, options.target.arguments(), store, executor, seed=seed)
    folder = RunFolder(options.find.out) if options.find.out else None
    led = prepare(RunSpec(task, method, SEARCH, seed), store, executor, folder)
    if options.run.fresh or led.folder.finished(led.settings, led.folder.ticket) is None:
        find(led.spec.task, method, run=led.run(None))
