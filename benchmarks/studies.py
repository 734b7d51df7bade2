"""Studies: what two one-thread workers save, what an executor costs a run, and how fast finished runs are listed.

Processes share the machine with whatever else runs on it, so that variants take turns, and reading is counted in
seconds of the processor.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch

import tombola as tb
from benchmarks.measure import Figure, interleaved
from tombola.cli.results import SHOWN, as_table
from tombola.files import held, write_atomically
from tombola.studies import Engine, Processes, RunSpec, Serial, Store, default_options, execute, make_task, rows_of
from tombola.studies.run_folder import RESULT
from tombola.training import train

RUNS, TURNS = 4, 5
LISTED = 10_000
"""Finished runs that are listed."""


def figures() -> Iterator[Figure]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        yield from _workers(Path(folder))
        yield from _lease(Path(folder) / "held")
        yield _listing(Path(folder) / "listed")


def _task(epochs: int, model: str = "lenet-300-100") -> tb.SupervisedTask:
    options = replace(default_options(["--data", "digits"]), model=model)
    return make_task(replace(options, recipe=replace(options.recipe, epochs=epochs, batch=64)))


def _workers(folder: Path) -> Iterator[Figure]:
    """The same dense runs bare, on one process, and on two workers that are warm; each turn in a store of its own.

    The network is one that trains alone, since small ones would train at once in any process.
    """
    task, number = _task(epochs=4, model="resnet20"), count()
    specs = [RunSpec(task, None, seed=seed) for seed in range(RUNS)]
    two, one = Processes(2, torch.device("cpu")), Serial(torch.device("cpu"))

    def bare() -> None:
        for spec in specs:
            train(task, None, seed=spec.seed, device="cpu")

    def on(executor: Processes | Serial) -> None:
        execute(specs, Store(folder / str(next(number))), executor)

    times = interleaved({"bare": bare, "one": lambda: on(one), "two": lambda: on(two)}, TURNS, warm=1)
    seconds = {name: f"{value / RUNS:.2f} s" for name, value in times.seconds.items()}
    yield times.figure(
        "time of two one-thread workers ÷ one, runs of digits", "two", "one", 1 / 1.8, f"{seconds['one']} a run on one"
    )
    yield times.figure("study on one process ÷ bare runs", "one", "bare", 1.05, f"{seconds['bare']} a bare run")


def _lease(folder: Path) -> Iterator[Figure]:
    def lease() -> None:
        with held(folder):
            pass

    times = interleaved({"lease": lease}, 200)
    milliseconds = 1000 * times.seconds["lease"]
    yield Figure("a lease taken and given back, ms", milliseconds, 5.0, "", times.spread)


def _listing(folder: Path) -> Figure:
    """Copies of real runs under other names: what is in them is read, checked and shown."""
    tb.compare(_task(epochs=10), [tb.method("snip", density=0.2)], seeds=1, engine=Engine(Store(folder), Serial()))
    results = Store(folder).results()
    for number in range(LISTED - len(results)):
        own = results[number % len(results)]
        settings = {**own.settings, "seed": number}
        copy = replace(own, seed=number, settings=settings, digest=f"run-{number:05}")
        write_atomically(folder / copy.digest / RESULT, copy.to_json())
    began = time.process_time()
    rows = rows_of(Store(folder).results())
    as_table(rows, SHOWN)
    seconds = time.process_time() - began
    return Figure(f"{len(rows):,} finished runs read and tabled, seconds of the processor", seconds, 2.0)
