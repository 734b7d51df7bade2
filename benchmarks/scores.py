"""Every score against one training step, in time and memory; SynFlow's rounds."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from benchmarks.measure import Figure, Work, interleaved, peak_bytes
from tombola import zoo
from tombola.registry import SCORES
from tombola.scores import Batch, ProsPr, Score
from tombola.training.memory import step_memory

ROUNDS = 100
TIMES = {"snip": 1.1, "grasp": 3.5}
MEMORY = {"prospr": 3.0}
ALL: dict[str, Score] = {
    **{name: score for name, score in SCORES.only(unit="weight").items() if SCORES.entry(name).needs != "training"},
    "prospr, first-order": ProsPr(gradient="first-order"),
}


def step(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Work:
    optimizer = tb.Recipe().make_optimizer(model.parameters())

    def work() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()

    return work


def synflow_pass(model: nn.Module, shape: tuple[int, ...]) -> Work:
    """One forward and backward of one sample in float64."""
    twin, ones = copy.deepcopy(model).double().eval(), torch.ones(1, *shape, dtype=torch.float64)
    return lambda: twin(ones).sum().backward()


def synflow_rounds(model: nn.Module, shape: tuple[int, ...], rounds: int) -> Work:
    """Rounds of SynFlow, each with its selection."""
    batches = [(torch.zeros(1, *shape), torch.zeros(1, dtype=torch.int64))]

    def work() -> None:
        mask = None
        for turn in range(rounds):
            scores = tb.scores.synflow(model, batches, mask=mask)
            mask = tb.select(scores, 0.1 ** ((turn + 1) / ROUNDS), within=mask)

    return work


def memory(score: Score, model: nn.Module, batches: Sequence[Batch]) -> int:
    """The most bytes that scoring holds: the network, and what is allocated beside it."""
    network = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    return network + peak_bytes(lambda: score(model, batches, F.cross_entropy))


def memory_of_step(model: nn.Module, batch: Batch) -> int:
    """Bytes that a training step holds, as Tombola counts them."""
    task = tb.SupervisedTask(lambda: model, {"train": batch, "test": batch})
    return step_memory(task, model, batch, task.recipe)


def figures() -> Iterator[Figure]:
    yield from of_network("resnet20", 10, batch_size=128, repeats=7, rounds=20)
    yield from of_network("wrn-28-2", 10, batch_size=64, repeats=4, rounds=10)
    yield from of_network("resnet50", 1000, batch_size=16, repeats=4, rounds=3)


def of_network(name: str, classes: int, *, batch_size: int, repeats: int, rounds: int) -> Iterator[Figure]:
    shape = (3, 32, 32)
    model = zoo.model(name, shape, classes)()
    batches = [(torch.randn(batch_size, *shape), torch.randint(0, classes, (batch_size,))) for _ in range(4)]
    work: dict[str, Work] = {
        key: lambda score=score: score(model, batches, F.cross_entropy) for key, score in ALL.items()
    }
    times = interleaved({"step": step(model, batches[0]), **work}, repeats, warm=1)
    setup, note = f"{name}, batch {batch_size}", f"step {1e3 * times.seconds['step']:.0f} ms"
    for key in ALL:
        yield times.figure(f"{key} ÷ training step ({setup})", key, "step", TIMES.get(key), note)

    flow = interleaved({"pass": synflow_pass(model, shape), "rounds": synflow_rounds(model, shape, rounds)}, 3, warm=1)
    note = f"float64 forward-backward {1e3 * flow.seconds['pass']:.0f} ms; {rounds} of {ROUNDS} rounds timed"
    passes = flow.ratio("rounds", "pass") * ROUNDS / rounds
    yield Figure(f"SynFlow's 100 rounds, in float64 forward-backwards ({name})", passes, 160, note, flow.spread)

    model.zero_grad()
    base = memory_of_step(model, batches[0])
    note = f"step {base / 2**20:.0f} MiB"
    for key, score in ALL.items():
        ratio = memory(score, model, batches) / base
        yield Figure(f"{key}: memory ÷ training step's ({setup})", ratio, MEMORY.get(key), note)
