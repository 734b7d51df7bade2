"""Searches in one's own loop with accelerate and Fabric, as they wrap networks and optimizers; over a kill too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import tombola as tb
from tombola.methods import Gradual, RigL
from tombola.testing import toy_network, toy_task

pytestmark = pytest.mark.filterwarnings("ignore::tombola.tickets.TieWarning")  # Adam's first step is as long everywhere

INPUTS, TARGETS = toy_task().data["train"]
STEPS = 12
METHODS = {
    "gradual": lambda model, optimizer: Gradual(density=0.1, count=4).watch(model, optimizer, steps=STEPS),
    "rigl": lambda model, optimizer: RigL(density=0.3, every="2it").watch(model, optimizer, steps=STEPS),
    "early-bird": lambda model, optimizer: tb.EarlyBird(density=0.5, window=2).watch(model, optimizer, INPUTS[:2]),
}
WATCHES = pytest.mark.parametrize("watching", METHODS.values(), ids=METHODS)


def plain():
    torch.manual_seed(0)
    model = toy_network()
    model[7].p = 0.0
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def batches(first=0):
    """Two passes a step."""
    for step in range(first, STEPS):
        for part in torch.arange(step * 20, step * 20 + 20).chunk(2):
            yield INPUTS[part % 120], TARGETS[part % 120], step


def reference(watching):
    model, optimizer = plain()
    watch = watching(model, optimizer)
    for index, (inputs, targets, _) in enumerate(batches(), 1):
        (F.cross_entropy(model(inputs), targets) / 2).backward()
        if index % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
            watch.epoch_end()
    return model, watch.ticket


def check(watching, model, watch):
    whole, ticket = reference(watching)
    assert watch.ticket.mask == ticket.mask
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in model.state_dict().items())
    watch.detach()


@WATCHES
def test_accelerate(watching, tmp_path):
    accelerate = pytest.importorskip("accelerate")

    def prepared():
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        inner, optimizer = plain()
        model, optimizer = accelerator.prepare(inner, optimizer)
        watch = watching(model, optimizer)
        accelerator.register_for_checkpointing(watch)
        return accelerator, inner, model, optimizer, watch

    def train(accelerator, model, optimizer, watch, first=0, last=STEPS):
        for inputs, targets, step in batches(first):
            if step == last:
                return
            with accelerator.accumulate(model):
                accelerator.backward(F.cross_entropy(model(inputs), targets))
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                watch.epoch_end()

    accelerator, inner, model, optimizer, watch = prepared()
    train(accelerator, model, optimizer, watch)
    check(watching, inner, watch)
    accelerator, inner, model, optimizer, watch = prepared()
    train(accelerator, model, optimizer, watch, last=5)
    accelerator.save_state(str(tmp_path))
    accelerator, inner, model, optimizer, watch = prepared()
    accelerator.load_state(str(tmp_path))
    train(accelerator, model, optimizer, watch, first=5)
    check(watching, inner, watch)


@WATCHES
@pytest.mark.parametrize("package", ["lightning.fabric", "lightning_fabric"])
def test_fabric(watching, package, tmp_path):
    library = pytest.importorskip(package)

    def prepared():
        fabric = library.Fabric(accelerator="cpu", devices=1)
        inner, optimizer = plain()
        model, optimizer = fabric.setup(inner, optimizer)
        return fabric, inner, model, optimizer, watching(model, optimizer)

    def train(fabric, model, optimizer, watch, first=0, last=STEPS):
        for index, (inputs, targets, step) in enumerate(batches(first), 1):
            if step == last:
                return
            fabric.backward(F.cross_entropy(model(inputs), targets) / 2)
            if index % 2 == 0:
                optimizer.step()
                optimizer.zero_grad()
                watch.epoch_end()

    fabric, inner, model, optimizer, watch = prepared()
    train(fabric, model, optimizer, watch)
    check(watching, inner, watch)
    fabric, inner, model, optimizer, watch = prepared()
    train(fabric, model, optimizer, watch, last=5)
    fabric.save(tmp_path / "checkpoint", {"model": model, "optimizer": optimizer, "watch": watch})
    fabric, inner, model, optimizer, watch = prepared()
    fabric.load(tmp_path / "checkpoint", {"model": model, "optimizer": optimizer, "watch": watch})
    train(fabric, model, optimizer, watch, first=5)
    check(watching, inner, watch)
