"""SNIP, GraSP and SynFlow in units of one training step, and their memory."""

from __future__ import annotations

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
    twin, ones = zoo_twin(model).double().eval(), torch.ones(1, *shape, dtype=torch.float64)
    return lambda: twin(ones).sum().backward()


def zoo_twin(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model)


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
    for name, shape, classes, size, repeats, rounds in (
        ("resnet20", (3, 32, 32), 10, 128, 7, 20),
        ("resnet50", (3, 32, 32), 1000, 16, 4, 3),
    ):
        model = zoo.model(name, shape, classes)()
        batch = torch.randn(size, *shape), torch.randint(0, classes, (size,))
        train = step(model, batch)
        snip = lambda model=model, batch=batch: tb.scores.snip(model, [batch], F.cross_entropy)
        grasp = lambda model=model, batch=batch: tb.scores.grasp(model, [batch], F.cross_entropy)
        times = interleaved({"step": train, "snip": snip, "grasp": grasp}, repeats, warm=1)
        own = f"{name}, batch {size}"
        note = f"step {1e3 * times.seconds['step']:.0f} ms"
        yield Figure(f"SNIP, one batch, ÷ training step ({own})", times.ratio("snip", "step"), 1.1, note, times.spread)
        yield Figure(
            f"GraSP, one batch, ÷ training step ({own})", times.ratio("grasp", "step"), 3.5, note, times.spread
        )

        some = interleaved(
            {"pass": synflow_pass(model, shape), "rounds": synflow_rounds(model, shape, rounds)}, 3, warm=1
        )
        note = f"float64 forward-backward {1e3 * some.seconds['pass']:.0f} ms; {rounds} of {ROUNDS} rounds timed"
        passes = some.ratio("rounds", "pass") * ROUNDS / rounds
        yield Figure(f"SynFlow's 100 rounds, in float64 forward-backwards ({name})", passes, 160, note, some.spread)

        base = saved_bytes(train)
        for score, work in (("SNIP", snip), ("GraSP", grasp)):
            note = f"step {base / 2**20:.0f} MiB saved; RSS so far {resident() / 2**30:.1f} GiB"
            yield Figure(f"{score}: saved tensors ÷ training step's ({own})", saved_bytes(work) / base, None, note)
