"""tombola smaller: make a trained network of your own smaller, and check it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from tombola.cli.console import console, print_json
from tombola.cli.output import RunOptions, engine
from tombola.cli.parse import parse
from tombola.cli.shrink import ShrinkOptions, written
from tombola.cli.shrink_output import show
from tombola.cli.subjects import score_named
from tombola.cli.targets import TargetOptions
from tombola.errors import TombolaError
from tombola.methods import OneShot
from tombola.shrinking import check_place, check_takes_target, target_of
from tombola.structure import Granularity, granularity, with_widths
from tombola.studies import default_options, density_of, make_smaller, make_task
from tombola.terminal_table import Column, TerminalTable
from tombola.training import Task


@dataclass(frozen=True)
class SmallerOptions:
    """Make a trained network of your own smaller: cut channels or heads out, fine-tune, check and export.

    The command scores the trained network's units, keeps the best that the target allows, and trains the smaller
    network on by the recipe. It checks it against the whole network, trained on for as long, and against a dense
    network of the same size from scratch. Last it writes the smaller network.
    """

    score: str = "magnitude"
    """what says how much a unit is worth: `tombola methods scores` lists them; or module:name"""
    granularity: str = "channel"
    """what is cut out: channel, head, neuron, head+neuron, block, …"""
    scope: Literal["global", "layerwise"] | dict[str, float] = "global"
    """how layers share what stays: all units are ranked together, or each layer keeps the same share; or a density for
    each group of units, typed in pairs or read from the folder of `tombola sensitivity`, in place of a target"""
    density: float | None = None
    """share of units to keep, in place of a target; without either, half of the FLOPs stay"""
    seeds: int = 1
    """number of data orders that each network trains with; from 3 on there is a verdict"""
    spent: int = 0
    """epochs that your weights have had, which the network from scratch gets, too"""
    scratch: bool = True
    """train a dense network of the same size from scratch"""
    to: Literal["", "onnx", "onnx-int8"] = "onnx"
    """what else is written, as of tombola shrink"""
    out: Path = Path("small")
    """folder of the smaller network, and of the runs"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    rest = list(words)
    options = parse(
        "smaller",
        rest,
        SmallerOptions.__doc__,
        smaller=SmallerOptions(),
        task=default_options(rest),
        target=TargetOptions(round_to=8),  # without, ONNX Runtime is hardly faster
        run=RunOptions(),
    )
    own = options.smaller
    options.target.check(rest, "--density", *([] if isinstance(own.scope, str) else ["--scope"]))
    if own.to and not find_spec("onnxruntime"):
        raise TombolaError("onnxruntime is not installed; pip install 'tombola[export]', or give --to ''")
    kind = granularity(own.granularity)
    targets = _targets(own, options.target.suited(kind, rest))
    check_place(own.out, *(["network.onnx"] if own.to else []))  # before anything trains
    if target_of(targets).asked:
        check_takes_target(kind)
    task = make_task(options.task)
    method = OneShot(
        density=_density(own, task, with_widths(kind, targets.get("round_to", 1), targets.get("protect", ()))),
        score=score_named(own.score),
        granularity=kind,
        scope=own.scope,
    )
    scratch = own.scratch and options.task.checkpoint is not None
    untrained = make_task(changed(options.task, checkpoint=None)) if scratch else None
    with engine(options.run, own.out / "runs") as runner:
        made = make_smaller(
            task, method, runner, untrained=untrained, seeds=own.seeds, spent=own.spent, targets=targets
        )
    shrink = ShrinkOptions(own.out, to=own.to)
    small = written(made.ticket, shrink, options.task, options.run, made.trained, given=made.given)
    if options.run.json:
        print_json(made.to_json() | {"shrink": small})
        return 0
    terminal = console()
    if made.aim is not None:
        terminal.print(f"Target: {made.aim.said}.")
    epochs = task.recipe.epochs
    rows = [("as given", 1.0, 0, (made.given,)), ("dense, trained on", 1.0, epochs, made.metrics["dense"])]
    rows.append(("smaller, fine-tuned", made.counted["flops"], epochs, made.metrics["ticket"]))
    if untrained is not None:
        rows.append(("same size, from scratch", made.counted["flops"], epochs + own.spent, made.metrics["same-size"]))
    columns = (
        Column("network", left=True),
        Column("FLOPs"),
        Column("epochs here", drop=1),
        Column("on the test split"),
    )
    table = TerminalTable(columns, title="Checked")
    for name, flops, length, values in rows:
        table.add(name, f"{flops:.1%}", str(length), made.spread(values))
    terminal.print(table)
    for sentence in made.sentences:
        terminal.print(sentence)
    show(small)
    return 0


def _targets(own: SmallerOptions, target: TargetOptions) -> dict[str, Any]:
    """What the smaller network shall be: half of the FLOPs where nothing was typed."""
    targets = target.arguments()
    is_open = own.density is None and isinstance(own.scope, str) and not target_of(targets).asked
    return targets | ({"flops": 0.5} if is_open else {})


def _density(own: SmallerOptions, task: Task, kind: Granularity) -> float:
    """The share of units that stay, where no target solves for it."""
    if own.density is not None or isinstance(own.scope, str):
        return 1.0 if own.density is None else own.density
    return density_of(task, kind, own.scope)
