"""tombola enough: how much pre-training is enough, by size of the data?"""

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
from tombola.studies import default_options, make_task
from tombola.training import half_squared_error, train_samples

MODEL, RATE = "two-layer", 10.0


@dataclass(frozen=True)
class EnoughOptions:
    """Train networks of one hidden layer on parts of the data, draw greedy tickets on the way, and say when more
    pre-training stopped paying: as measured, and as the paper's formula says.

    The loss is half the squared error, as the theory has it, with classes as one-hot vectors.
    """

    sizes: tuple[int, ...] = ()
    """how many training examples the parts have; if none is named, a tenth, a third and all of them"""
    steps: int = 1000
    """optimizer steps that each network is trained for, to the end of its epoch"""
    seeds: int = 2
    """how many seeds, each with parts and networks of its own"""
    out: Path = Path("runs/enough")
    """the folder of the runs and the report"""


def run(words: Sequence[str]) -> int:
    usual = default_options(words)
    recipe = replace(usual.recipe, lr=RATE, schedule="constant", weight_decay=0.0, precision="float32")
    options = parse(
        "enough",
        words,
        f"{EnoughOptions.__doc__}\n\n{(EnoughPretraining.__doc__ or '').partition('Args:')[0]}",
        parts=EnoughOptions(),
        enough=EnoughPretraining(stop=False),
        task=replace(usual, model=MODEL, recipe=recipe),
        run=RunOptions(),
    )
    own = options.parts
    task = replace(make_task(options.task), loss=half_squared_error)
    samples = train_samples(task.batches("train", 0, 0))
    sizes = own.sizes or (samples // 10, samples // 3, samples)
    with engine(options.run, own.out) as running:
        done = enough(task, options.enough, sizes=sizes, steps=own.steps, seeds=range(own.seeds), engine=running)
    title = f"How much pre-training is enough on {options.task.data}?"
    command = shlex.join(["tombola", "enough", *words])
    page = write_enough(done, own.out, title=title, command=command, task=dict(task.labels))
    if options.run.json:
        print_json({"report": str(page), "sentences": enough_sentences(done), **done.to_json()})
        return 0
    to = console()
    to.print(enough_table(done))
    for sentence in enough_sentences(done):
        to.print(sentence)
    to.print(f"\nReport: {page}")
    return 0
