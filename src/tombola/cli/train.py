"""tombola train TICKET|METHOD|dense: train one network, and read the test split once, at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from tombola.cli.console import console, print_json
from tombola.cli.output import RunOptions, engine, work
from tombola.cli.parse import parse
from tombola.cli.subjects import first_word, is_ticket, options_of, ticket_at
from tombola.evidence import measure_of
from tombola.methods import Method
from tombola.registry import CONTROLS
from tombola.report.prose import counted
from tombola.studies import RunFolder, RunSpec, at_size, default_options, execute, make_task, method_named
from tombola.tickets import Ticket


@dataclass(frozen=True)
class TrainOptions:
    """Train a saved ticket, a method's ticket or the whole network ("dense") once, and print the test accuracy.

    A ticket is a part of a network's weights, with their starting values.
    """

    density: float | None = None
    """share of units (weights, unless the method removes channels) to keep; a method's own if not given"""
    remove: int | None = None
    """number of blocks to remove, for a method that removes whole blocks; its own if not given"""
    control: Annotated[str, arg(help=f"train a control in the ticket's place: {', '.join(CONTROLS)}")] = ""
    extra_epochs: float = 0.0
    """epochs beyond those of the recipe, for the dense network"""
    lr: float | None = None
    """learning rate of this training, in place of the recipe's or ticket's; a search before it keeps its own"""
    init_seed: int | None = None
    """seed of the dense network's initialisation; --seed if not given"""
    seed: int = 0
    """seed of all randomness: the data order, the dense network's initialisation and a method's search"""
    out: Path | None = None
    """folder of the run; if not given, one under runs/ that the settings name"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    name, rest = first_word(words, "tombola train TICKET|METHOD|dense")
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
        "train TICKET|METHOD|dense",
        rest,
        TrainOptions.__doc__,
        train=TrainOptions(),
        task=task_options,
        run=RunOptions(),
    )
    train: TrainOptions = options.train
    if subject is not None and not isinstance(subject, Ticket):
        subject = at_size(subject, train.density, train.remove)
    task = make_task(options.task)
    spec = RunSpec(task, subject, train.control, train.seed, train.init_seed, train.extra_epochs, train.lr)
    with engine(options.run, Path("runs")) as runner:
        folder = RunFolder(train.out) if train.out else None
        (result,) = execute([spec], runner.store, runner.executor, folder)
    if options.run.json:
        print_json(asdict(result))
        return 0
    measure = measure_of(task, [result.metric])
    came_to = f"test {measure.name} {measure.text(result.metric)}"
    whole = "" if result.network_density is None else f" ({result.network_density:.4g} of the whole network)"
    console().print(
        f"{result.arm}: {came_to} after {counted(result.epochs, 'epoch')} at density "
        f"{result.weight_density:.4g}{whole}, seed {result.seed}, {work(result.training)}."
    )
    return 0
