"""Networks trained together are the networks trained alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import tombola as tb
from tombola.training import Run, Varied, binary_accuracy, binary_cross_entropy
from tombola.training.ensemble import together
from tombola.training.ensemble.together import chunk_size, pieces

STEPS = 100


def mlp(inputs: int = 6, classes: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, classes)
    )


def conv(*extra: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), *extra, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )


def normed() -> nn.Module:
    return conv(nn.BatchNorm2d(4))


def dropped() -> nn.Module:
    return conv(nn.Dropout(0.5))


class Chosen(nn.Module):
    """Looks at its values to decide what to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.linear(inputs)
        return outputs if outputs.sum() > 0 else -outputs


def partly_frozen() -> nn.Module:
    model = mlp()
    model[1].weight.requires_grad_(False)
    return model


def task_of(model=mlp, shape=(6,), count: int = 97, **recipe) -> tb.SupervisedTask:
    """Ten steps an epoch, the last one a smaller batch, for ten epochs."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, *shape, generator=generator)
    targets = (inputs.flatten(1)[:, :3] * 2).argmax(1)
    data = {"train": (inputs, targets), "validation": (inputs[:20], targets[:20]), "test": (inputs, targets)}
    fields = {"epochs": 10, "batch": 10, "lr": 0.05, "weight_decay": 5e-4, "precision": "float32"} | recipe
    return tb.SupervisedTask(model, data, recipe=tb.Recipe(**fields))


def in_loaders(task: tb.SupervisedTask) -> tb.SupervisedTask:
    """The same data in DataLoaders."""
    loaders = {split: DataLoader(TensorDataset(*own), 10) for split, own in task.data.items()}
    return replace(task, data=loaders)


def masked(task: tb.Task, seed: int) -> tb.Mask:
    """Of all parameters, biases too."""
    generator = torch.Generator().manual_seed(seed)
    return tb.Mask.of(
        {name: torch.rand(p.shape, generator=generator) < 0.5 for name, p in task.build(seed).named_parameters()}
    )


def members_of(task: tb.Task) -> list[tb.Member]:
    ticket = tb.find(task, tb.method("snip", density=0.4), seed=5, progress=False)
    held = replace(ticket, held=tuple(name for name, _ in task.build(0).named_parameters() if "bias" in name))
    return [
        tb.Member(0),
        tb.Member(1, masked(task, 1), init_seed=7, recipe={"lr": 0.1}),
        tb.Member(1, held, recipe={"schedule": "constant"}),
    ]


def assert_equal_alone(task: tb.Task, members: list[tb.Member]) -> list[tb.training.Trained]:
    """Weights, history and cost are those of each member's own training, to 1e-5; dead weights are exactly zero."""
    at_once, alone = tb.train_together(task, members), tb.train_together(task, members, chunk=1)
    for member, one, other in zip(members, at_once, alone, strict=True):
        assert (one.together, one.alone, other.together) == (len(members), "", 1)
        for (name, own), (_, expected) in zip(one.model.state_dict().items(), other.model.state_dict().items()):
            torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5, msg=lambda words: f"{name}: {words}")
        for name in member.mask:
            assert not one.model.state_dict()[name][~member.mask[name]].any()
        assert len(one.history) == len(other.history) > 0
        for row, expected in zip(one.history, other.history, strict=True):
            assert row.keys() == expected.keys()
            assert row["lr"] == expected["lr"]
            assert [row[key] for key in row if "loss" in key] == pytest.approx(
                [expected[key] for key in row if "loss" in key], rel=1e-4
            )
        timed = {"seconds": 0, "peak_memory": 0}
        assert replace(one.cost, **timed) == replace(other.cost, **timed)
        assert one.metric == pytest.approx(other.metric, abs=0.011)
        assert one.validation == pytest.approx(other.validation, abs=0.051)
    return at_once


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"momentum": 0.0, "weight_decay": 0.0},
        {"nesterov": True},
        {"optimizer": "adam", "lr": 0.01},
        {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
        {"label_smoothing": 0.1, "drop_last": True},
        {"start": "13it"},
    ],
    ids=str,
)
def test_each_is_the_network_trained_alone(recipe):
    task = task_of(**recipe)
    assert_equal_alone(task, members_of(task))


def test_each_has_its_own_schedule():
    task = task_of()
    schedules = ("cosine", "multistep", "constant", "one-cycle", "cosine-by-epoch")
    own = [tb.Member(seed, recipe={"schedule": name, "warmup": seed}) for seed, name in enumerate(schedules)]
    trained = assert_equal_alone(task, [*own, tb.Member(2, recipe={"schedule": "multistep", "gamma": 0.5})])
    assert len({one.history[6]["lr"] for one in trained}) == 6


@pytest.mark.parametrize("model", [conv, normed])
@pytest.mark.parametrize("augment", [(), ("crop", "flip")])
def test_small_convolutional_networks_too(model, augment):
    task = task_of(model, (1, 6, 6), augment=augment)
    assert_equal_alone(task, members_of(task))


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none").square().mean()


@dataclass(frozen=True)
class Halved(Varied):
    """Another forward and another loss than those that are known."""

    def forward(self, model, inputs, /):
        return model(inputs / 2)

    def loss(self, outputs, targets, /, **options):
        return squared(outputs, targets)


@pytest.mark.parametrize("forward", [True, False])
def test_a_tasks_own_forward_and_loss_are_what_trains(forward):
    task = task_of()
    task = Halved(task) if forward else replace(task, loss=squared)
    assert_equal_alone(task, [tb.Member(0), tb.Member(1)])


def test_networks_of_one_logit():
    task = task_of(lambda: mlp(classes=1))
    data = {split: (inputs, (inputs[:, 0] > 0).long()) for split, (inputs, _) in task.data.items()}
    task = replace(task, data=data, loss=binary_cross_entropy, metric=binary_accuracy)
    assert_equal_alone(task, [tb.Member(0), tb.Member(1, recipe={"lr": 0.2})])


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (task_of(dropped, (1, 6, 6)), "'1' (Dropout) draws at random for each network"),
        (task_of(Chosen), "an operation of it cannot be batched"),
        (replace(task_of(), loss=F.multi_margin_loss), "an operation of it cannot be batched"),
        (task_of(precision="bf16"), "it trains in bf16; set the recipe's precision to float32"),
        (task_of(compile=True), "its recipe compiles it"),
        (task_of(partly_frozen), "not all of its parameters are trained in float32"),
        (in_loaders(task_of()), "its training batches come from a DataLoader, not from tensors in memory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_batched_trains_one_after_another_and_says_why(task, words, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)
    task = replace(task, recipe=replace(task.recipe, epochs=1))
    trained = tb.train_together(task, [tb.Member(0), tb.Member(1)])
    assert [one.together for one in trained] == [1, 1]
    assert all(words in one.alone for one in trained)
