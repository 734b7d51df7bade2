"""SNIP, GraSP and SynFlow in units of one training step, and their memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from benchmarks.measure import Figure, Work, interleaved, resident, saved_bytes
from tombola import zoo

ROUNDS = 100


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
    """Rounds of SynFlow with the selection after each."""
    batches = [(torch.zeros(1, *shape), torch.zeros(1, dtype=torch.int64))]

    def work() -> None:
        mask = None
        for turn in range(rounds):
            scores = tb.scores.synflow(model, batches, mask=mask)
            mask = tb.select(scores, 0.1 ** ((turn + 1) / ROUNDS), within=mask)

    return work


def figures() -> Iterator[Figure]:
    yield from of_network("resnet20", 10, batch_size=128, repeats=7, rounds=20)
    yield from of_network("resnet50", 1000, batch_size=16, repeats=4, rounds=3)


def of_network(name: str, classes: int, *, batch_size: int, repeats: int, rounds: int) -> Iterator[Figure]:
    shape = (3, 32, 32)
    model = zoo.model(name, shape, classes)()
    batch = torch.randn(batch_size, *shape), torch.randint(0, classes, (batch_size,))
    work: dict[str, Work] = {
        "step": step(model, batch),
        "SNIP": lambda: tb.scores.snip(model, [batch], F.cross_entropy),
        "GraSP": lambda: tb.scores.grasp(model, [batch], F.cross_entropy),
    }
    times, own = interleaved(work, repeats, warm=1), f"{name}, batch {batch_size}"
    note = f"step {1e3 * times.seconds['step']:.0f} ms"
    for score, bar in (("SNIP", 1.1), ("GraSP", 3.5)):
        yield times.figure(f"{score}, one batch, ÷ training step ({own})", score, "step", bar, note)

    flow = interleaved({"pass": synflow_pass(model, shape), "rounds": synflow_rounds(model, shape, rounds)}, 3, warm=1)
    note = f"float64 forward-backward {1e3 * flow.seconds['pass']:.0f} ms; {rounds} of {ROUNDS} rounds timed"
    passes = flow.ratio("rounds", "pass") * ROUNDS / rounds
    yield Figure(f"SynFlow's 100 rounds, in float64 forward-backwards ({name})", passes, 160, note, flow.spread)

    base = saved_bytes(work["step"])
    for score in ("SNIP", "GraSP"):
        note = f"step saves {base / 2**20:.0f} MiB; largest RSS so far {resident() / 2**30:.1f} GiB"
        yield Figure(f"{score}: bytes saved ÷ training step's ({own})", saved_bytes(work[score]) / base, None, note)
