"""Channels last is tried once, and data in memory go to a device once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from tombola.training import MemoryBatches, channels_last, evaluate, placement
from tombola.training.placement import PinnedBatches, placed

IMAGES = torch.randn(6, 3, 10, 10, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


class Flattened(nn.Module):
    """Counts its calls; flattens by `view`, which needs the usual layout, or by `flatten`."""

    calls = 0

    def __init__(self, view: bool) -> None:
        super().__init__()
        self.view = view
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8 * 64, 3)

    def forward(self, images):
        Flattened.calls += images.device.type != "meta"
        features = F.dropout(self.norm(self.conv(images)).relu(), training=self.training)
        return self.head(features.view(len(images), -1) if self.view else features.flatten(1))


def task_of(view: bool, choice="auto") -> tb.SupervisedTask:
    recipe = tb.Recipe(epochs=1, batch=6, precision="float32", channels_last=choice)
    splits = dict.fromkeys(("train", "validation", "test"), IMAGES)
    return tb.SupervisedTask(lambda: Flattened(view), splits, recipe=recipe)


def layout_of(model) -> bool:
    return model.conv.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("view", [True, False])
def test_a_network_that_needs_the_usual_layout_gets_it(view):
    task = task_of(view)
    trained = tb.train(task)
    assert layout_of(trained.model) is not view
    if view:  # dropout draws by the layout
        assert torch.equal(trained.model.head.weight, tb.train(task_of(view, "off")).model.head.weight)


def test_on_is_refused_with_the_layer_and_the_reason():
    with pytest.raises(tb.TombolaError, match=r"cannot be channels last \(after 'norm': view size is not compatible"):
        tb.train(task_of(True, "on"))
    assert layout_of(tb.train(task_of(False, "on")).model)


@pytest.mark.parametrize("view", [True, False])
def test_it_is_tried_once_and_touches_nothing(view):
    task, model = task_of(view), task_of(view).build(0)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before, state, Flattened.calls = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state(), 0
    assert channels_last(task, model, task.recipe, IMAGES) is not view
    assert Flattened.calls == 2 + view  # training and evaluation; after one that fails, in the usual layout
    for _ in range(2):
        evaluate(task, model, "test", task.recipe)
    assert Flattened.calls == 2 + view + 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert model.conv.weight.grad is None


def test_an_error_of_the_network_is_its_own():
    class Broken(Flattened):
        def forward(self, images):
            return self.conv(images) @ torch.ones(3, 3)

    task = replace(task_of(False), model=lambda: Broken(False))
    with pytest.raises(RuntimeError, match=r"mat1|size|shape"):
        tb.train(task)


def test_data_go_to_a_device_once_where_they_fit(monkeypatch):
    # The meta device stands for a GPU: it has no values, so that only the way of the data is seen.
    device = torch.device("meta")
    batches = MemoryBatches(*IMAGES, size=4, seed=1)
    size = sum(tensor.nbytes for tensor in IMAGES)
    monkeypatch.setattr(placement, "free_memory", lambda device: 4 * size - 4)
    assert placed(batches, device) is batches
    placement._placed.clear()
    monkeypatch.setattr(placement, "free_memory", lambda device: 4 * size)
    there = [placed(replace(batches, seed=seed), device) for seed in (1, 2)]
    assert there[0].inputs is there[1].inputs
    assert there[0].inputs.device == there[0].targets.device == device
    assert [len(targets) for _, targets in there[0]] == [4, 2]
    assert all(inputs.device == device for inputs, _ in there[1])
    assert placed(batches, torch.device("cpu")) is batches
    placement._placed.clear()


def test_what_does_not_fit_comes_from_pinned_memory(monkeypatch):
    monkeypatch.setattr(placement, "free_memory", lambda device: 0)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 0)
    batches = MemoryBatches(*IMAGES, size=4)
    pinned = placed(batches, torch.device("cuda"))
    assert isinstance(pinned, PinnedBatches)
    assert all(torch.equal(x, z) for (x, _), (z, _) in zip(pinned, batches, strict=True))
    placement._placed.clear()


def test_what_is_kept_on_a_device_goes_with_the_tensors(monkeypatch):
    monkeypatch.setattr(placement, "free_memory", lambda device: 10**9)
    inputs = torch.ones(4, 2)
    placed(MemoryBatches(inputs, torch.ones(4), size=2), torch.device("meta"))
    assert len(placement._placed) == 1
    del inputs
    assert not placement._placed
