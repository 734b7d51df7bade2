"""A step with a growing penalty against a dense one, and a step under attack against bare passes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

import tombola as tb
from benchmarks.measure import Figure, Work, interleaved
from tombola import zoo
from tombola.training.attacked_batches import Attacker

STEPS = 10
NETWORKS = (("resnet20", (3, 32, 32), 100), ("lenet-300-100", (1, 28, 28), 300))


def made(name: str, shape: tuple[int, ...]) -> tuple[torch.nn.Module, tuple[Tensor, Tensor]]:
    """A network and a batch."""
    model, images = zoo.model(name, shape, 10)(), torch.rand(128, *shape)
    if name.startswith("resnet"):
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    return model, (images, torch.randint(0, 10, (128,)))


def step(name: str, shape: tuple[int, ...], penalised: bool) -> Work:
    """A training step, of a network that is being transformed or not."""
    model, (images, targets) = made(name, shape)
    optimizer = tb.Recipe(lr=0.001).make_optimizer(model.parameters())
    if penalised:
        tb.methods.RST(density=0.1).watch(model, optimizer, steps=1_000_000)

    def work() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()

    return work


def attacked_step(name: str, shape: tuple[int, ...]) -> Work:
    """A training step under PGD, as the loop takes it."""
    model, (images, targets) = made(name, shape)
    recipe = tb.Recipe(lr=0.001, precision="float32")
    data = {split: (images, targets) for split in ("train", "test")}
    task = tb.adversarial(tb.SupervisedTask(lambda: model, data, recipe=recipe), data_range=(0, 1))
    attacker, optimizer = Attacker(task, model, recipe), recipe.make_optimizer(model.parameters())

    def work() -> None:
        attacked = attacker(images, targets)
        optimizer.zero_grad()
        F.cross_entropy(model(attacked), targets).backward()
        optimizer.step()

    return work


def bare_passes(name: str, shape: tuple[int, ...]) -> Work:
    """As many forward and backward passes, and nothing else."""
    model, (images, targets) = made(name, shape)

    def work() -> None:
        for _ in range(1 + STEPS):
            model.zero_grad()
            F.cross_entropy(model(images), targets).backward()

    return work


def figures() -> Iterator[Figure]:
    for name, shape, repeats in NETWORKS:
        both = {"dense": step(name, shape, penalised=False), "rst": step(name, shape, penalised=True)}
        times = interleaved(both, repeats)
        note = f"dense {1e3 * times.seconds['dense']:.2f} ms"
        yield times.figure(f"step with a growing penalty ÷ dense step ({name}, batch 128)", "rst", "dense", 1.05, note)
    for name, shape, repeats in NETWORKS:
        both = {"bare": bare_passes(name, shape), "pgd": attacked_step(name, shape)}
        times = interleaved(both, max(10, repeats // 10))
        note = f"eleven passes {1e3 * times.seconds['bare']:.1f} ms"
        yield times.figure(f"PGD-10 step ÷ eleven bare passes ({name}, batch 128)", "pgd", "bare", 1.05, note)
