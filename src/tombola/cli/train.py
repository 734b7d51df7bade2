"""tombola train TICKET|METHOD|dense: one training, and the test split read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from tombola.cli.console import console, print_json
from tombola.cli.output import RunOptions, engine, work
from tombola.cli.parse import parse
from tombola.cli.subjects import at_size, first_word, is_ticket, method_named, options_of, ticket_at
from tombola.methods import Method
from tombola.registry import CONTROLS
from tombola.studies import RunFolder, RunSpec, default_options, execute, make_task
from tombola.tickets import Ticket


@dataclass(frozen=True)
class TrainOptions:
    """Train a ticket, a method's ticket or the dense network."""

    density: float | None = None
    """for a method: the share of weights to keep"""
    remove: int | None = None
    """for a method that removes whole blocks: how many"""
    control: Annotated[str, arg(help=f"train a control of it instead: {', '.join(CONTROLS)}")] = ""
    extra_epochs: float = 0.0
    """for the dense network: epochs beyond the recipe"""
    lr: float | None = None
    """learning rate of this training, whatever recipe and ticket say; a search before it keeps its own"""
    init_seed: int | None = None
    """for the dense network: the seed of its initialisation, if another than seed"""
    seed: int = 0
    """of the data order and all that is random (and of a method's search and the dense initialisation)"""
    out: Path | None = None
    """the run's own folder; without it one under runs/ named by the settings"""


def run(words: Sequence[str]) -> int:
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
    options = parse("train", rest, TrainOptions.__doc__, train=TrainOptions(), task=task_options, run=RunOptions())
    own = options.train
    if subject is not None and not isinstance(subject, Ticket):
        subject = at_size(subject, own.density, own.remove)
    spec = RunSpec(make_task(options.task), subject, own.control, own.seed, own.init_seed, own.extra_epochs, own.lr)
    with engine(options.run, Path("runs")) as running:
        folder = RunFolder(own.out) if own.out else None
        (result,) = execute([spec], running.store, running.executor, folder)
    if options.run.json:
        print_json(asdict(result))
        return 0
    console().print(
        f"{result.arm}: test accuracy {result.metric:.2%} after {result.epochs} epochs at density "
        f"{result.weight_density:.4g}, seed {result.seed}, {work(result.training)}."
    )
    return 0
