"""tombola enough: measure how much pre-training a ticket needs, by size of the data."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tombola.cli.console import console, print_json
from tombola.cli.output import RunOptions, engine
from tombola.cli.parse import parse
from tombola.methods import EnoughPretraining
from tombola.papers.pretraining import enough, enough_sentences, enough_table, write_enough
from tombola.studies import default_options, supervised_task
from tombola.training import half_squared_error, train_samples

MODEL, RATE = "two-layer", 10.0


@dataclass(frozen=True)
class EnoughOptions:
    """Measure how many training steps a network needs before its greedy tickets stop improving (pre-training).

    The command trains networks of one hidden layer on parts of the data. On the way it draws greedy tickets: small
    networks of the neurons that lower the loss most, picked one by one. It reports the step after which tickets
    stopped improving, as measured and as the paper's formula predicts. The loss is half the squared error to one-hot
    class vectors, as in the paper's theory.
    """

    sizes: tuple[int, ...] = ()
    """numbers of training examples in the parts; a tenth, a third and all of them if not given"""
    steps: int = 1000
    """optimizer steps of each training, rounded up to whole epochs"""
    seeds: int = 2
    """number of repetitions, each with its own parts and networks"""
    out: Path = Path("runs/enough")
    """folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    defaults = default_options(words)
    recipe = replace(defaults.recipe, lr=RATE, schedule="constant", weight_decay=0.0, precision="float32")
    options = parse(
        "enough",
        words,
        f"{EnoughOptions.__doc__}\n\n{(EnoughPretraining.__doc__ or '').partition('Args:')[0]}",
        parts=EnoughOptions(),
        enough=EnoughPretraining(stop=False),
        task=replace(defaults, model=MODEL, recipe=recipe),
        run=RunOptions(),
    )
    parts = options.parts
    task = supervised_task(options.task)
    if not options.task.task_loss:
        task = replace(task, loss=half_squared_error)
    samples = train_samples(task.batches("train", 0, 0))
    sizes = parts.sizes or (samples // 10, samples // 3, samples)
    with engine(options.run, parts.out) as runner:
        measured = enough(task, options.enough, sizes=sizes, steps=parts.steps, seeds=range(parts.seeds), engine=runner)
    title = f"How much pre-training is enough on {options.task.data}?"
    command = shlex.join(["tombola", "enough", *words])
    page = write_enough(measured, parts.out, title=title, command=command, task=dict(task.labels))
    if options.run.json:
        print_json({"report": str(page), "sentences": enough_sentences(measured), **measured.to_json()})
        return 0
    terminal = console()
    terminal.print(enough_table(measured))
    for sentence in enough_sentences(measured):
        terminal.print(sentence)
    terminal.print(f"\nReport: {page}")
    return 0
