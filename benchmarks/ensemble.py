"""Networks trained together against the same networks one after another, and complete runs a minute."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import torch
from torch import nn

import tombola as tb
from benchmarks.measure import Figure, Times, spread
from tombola import zoo
from tombola.training import binary_accuracy, binary_cross_entropy
from tombola.training.ensemble.ensemble_training import chunk_size

SPIRAL = tb.Recipe(epochs=50, weight_decay=5e-4, schedule="cosine-by-epoch", precision="float32", drop_last=True)

COMPLETE = 5
"""How many times a chunk of the spiral's networks is trained to its end."""


def perceptron() -> nn.Module:
    """2-16-16-16-1."""
    sizes = (2, 16, 16, 16)
    hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(16, 1))


def spiral() -> tb.SupervisedTask:
    """The Cubist Spiral, 390 steps an epoch; the accuracy is that on all points, measured once, at the end."""
    data = zoo.data("cubist-spiral")
    data["validation"] = tuple(part[:0] for part in data["test"])
    return tb.SupervisedTask(perceptron, data, binary_cross_entropy, SPIRAL, binary_accuracy)


def lenet() -> tb.SupervisedTask:
    """784-300-100-10 on random images, 100 steps an epoch."""
    inputs, targets = torch.randn(12_800, 1, 28, 28), torch.randint(0, 10, (12_800,))
    data = {"train": (inputs, targets), "validation": (inputs[:0], targets[:0]), "test": (inputs[:128], targets[:128])}
    recipe = tb.Recipe(lr=0.05, precision="float32")
    return tb.SupervisedTask(zoo.model("lenet-300-100", (1, 28, 28), 10), data, recipe=recipe)


def epochs_apart(trained: tb.training.Trained) -> list[float]:
    """Seconds of each of one network's epochs but the first, which warms up."""
    ends = [row["seconds"] for row in trained.history]
    return [later - sooner for sooner, later in pairwise(ends)]


def compared(task: tb.SupervisedTask, members: int, turns: int, epochs: int) -> Times:
    """Seconds of one network's epoch, in turn: among `members` that train together, and alone in the plain loop."""
    task = replace(task, recipe=replace(task.recipe, epochs=epochs))
    seconds: dict[str, list[float]] = {"together": [], "alone": []}
    for _ in range(turns):
        networks = [tb.training.Member(seed, recipe={"lr": 0.05 * (1 + seed % 3)}) for seed in range(members)]
        seconds["together"] += epochs_apart(tb.training.train_together(task, networks)[-1])
        seconds["alone"] += epochs_apart(tb.train(task))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return Times(medians, max(spread(values) for values in seconds.values()))


def figures() -> Iterator[Figure]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from of_spiral()
    finally:
        torch.set_num_threads(threads)
    for members in (1, 2, 4, 8, 16):
        times = compared(lenet(), members, turns=max(4, 24 // members), epochs=4)
        note = f"alone {1e3 * times.seconds['alone'] / 100:.2f} ms a step"
        what = f"together ÷ one after another (784-300-100-10, batch 128, {members} at once)"
        yield times.figure(what, "together", "alone", 1 / 0.95, note)


def of_spiral() -> Iterator[Figure]:
    task = spiral()
    members = chunk_size(task, tb.training.Member(), torch.device("cpu"))
    times = compared(task, members, turns=3, epochs=4)
    step = 1e6 * times.seconds["together"] / 390
    note = f"alone {1e6 * times.seconds['alone'] / 390:.0f} µs a step, together {step:.1f} µs a network's step"
    what = f"together ÷ one after another (2-16-16-16-1, batch 128, {members} at once, one thread)"
    yield times.figure(what, "together", "alone", 1 / 15, note)
    seconds = []
    for turn in range(COMPLETE):
        started = time.perf_counter()
        trained = tb.training.train_together(task, [tb.training.Member(members * turn + i) for i in range(members)])
        seconds.append(time.perf_counter() - started)
    a_minute = [60 * members / value for value in seconds]
    accuracy = statistics.median(run.metric for run in trained)
    rates = ", ".join(f"{rate:.0f}" for rate in a_minute)
    note = f"{rates} a minute, {members} runs each time, median accuracy {accuracy:.1%}"
    what = "minutes for 200 complete runs of 50 epochs (2-16-16-16-1, one thread)"
    yield Figure(what, 200 / statistics.median(a_minute), 1.0, note, spread(seconds))
