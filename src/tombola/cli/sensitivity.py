"""tombola sensitivity: what each group of a network's units is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tombola.cli.console import console, print_json, strict_line
from tombola.cli.output import RunOptions, refuse_foreign
from tombola.cli.parse import parse
from tombola.cli.scope_files import SENSITIVITY
from tombola.cli.subjects import score_named
from tombola.cli.targets import TargetOptions
from tombola.errors import TombolaError
from tombola.files import held, write_atomically
from tombola.report import sensitivity_picture
from tombola.shrinking import check_can_be_cut
from tombola.structure import granularity, with_widths
from tombola.studies import default_options, make_task, sensitivity
from tombola.terminal_table import Column, TerminalTable
from tombola.training import Run, bars, chosen_device


@dataclass(frozen=True)
class SensitivityOptions:
    """Cut each group of units alone, and measure accuracy on the validation split, FLOPs and time without it.

    A group is what can only be cut together, as the channels of a residual stream. Nothing is trained after the cut.
    Without --checkpoint the network is trained first.
    """

    densities: tuple[float, ...] = (0.75, 0.5, 0.25)
    """shares of its units that a group keeps"""
    score: str = "magnitude"
    """which units go first: `tombola methods scores` lists them; or module:name"""
    granularity: str = "channel"
    """what is cut out: channel, head, neuron, head+neuron, block"""
    tolerance: float | None = None
    """also say how little each group may keep, where each alone may cost so much of the metric, as 0.01"""
    seed: int = 0
    """of the training, where the network is trained first"""
    out: Path = Path("runs/sensitivity")
    """folder of the picture and the figures"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    rest = list(words)
    options = parse(
        "sensitivity",
        rest,
        SensitivityOptions.__doc__,
        sensitivity=SensitivityOptions(),
        task=default_options(rest),
        target=TargetOptions(round_to=8),  # as `tombola smaller`, which takes the densities
        run=RunOptions(),
    )
    own, target = options.sensitivity, options.target
    for name in ("parameters", "speedup", "latency"):
        if getattr(target, name) is not None:
            raise TombolaError(f"a density for each group is solved for FLOPs alone; give --flops in place of --{name}")
    score, kind = score_named(own.score), granularity(own.granularity)
    check_can_be_cut(kind)
    task, device = make_task(options.task), chosen_device(options.run.device)
    target = target.suited(kind, rest)
    kind = with_widths(kind, target.round_to, target.protect)
    refuse_foreign(own.out)
    with bars(not options.run.json) as progress, held(own.out) as lease:
        job = Run(own.seed, own.out, device, progress, meter=options.run.meter, lease=lease)
        if options.run.fresh:
            job.clear()
        found = sensitivity(
            task,
            None if options.task.checkpoint is None else task.build(own.seed),
            granularity=kind,
            densities=own.densities,
            score=score,
            samples=target.target_batch,
            run=job,
        )
        scope = None
        if target.flops is not None or own.tolerance is not None:
            scope = found.scope(flops=target.flops, tolerance=own.tolerance)
        content = found.to_json() | ({} if scope is None else {"scope": scope})
        write_atomically(own.out / "sensitivity.svg", sensitivity_picture(found))
        write_atomically(own.out / SENSITIVITY, strict_line(content) + "\n")
        job.clear()
    if options.run.json:
        print_json(content)
        return 0
    head, rows = found.rows()
    drops = {"units": 4, "layers": 3, "parameters": 2, "metric": 1}
    columns = [Column(name, drops.get(name, 0), left=not place) for place, name in enumerate(head)]
    table = TerminalTable(columns, title=f"Each group alone; {found.whole}")
    for row in rows:
        table.add(*row)
    terminal = console()
    terminal.print(table)
    if scope is not None:
        terminal.print(
            f"Densities of the groups, as `tombola smaller … --scope {own.out}` and tb.select(…, scope=) take them: "
            + ", ".join(f"{name} {share:.3g}" for name, share in scope.items())
        )
    terminal.print(f"Picture: {own.out / 'sensitivity.svg'}; all figures: {own.out / 'sensitivity.json'}")
    return 0
