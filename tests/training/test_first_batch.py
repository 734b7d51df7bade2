"""Nonsense is refused in one sentence before anything trains; what the user's own code raises is passed on."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from nonsense import CASES, CLASSES, EMPTY, INPUTS, MAPS, Nonsense, UsersError, conv, data, mlp, task
from tombola.cli import main
from tombola.registry import LOSSES, METHODS, METRICS
from tombola.testing import toy_task
from tombola.training import (
    CrossEntropy,
    MeanIoU,
    MeasureWarning,
    NextToken,
    StateWarning,
    TaskWrapper,
    check_first_batch,
    identity,
)

ALL_METHODS = ("snip", "imp", "synflow", "edge-popup", "gem-miner", "early-bird", "rigl", "greedy")


def come_to(case: Nonsense, method: str) -> None:
    def run() -> None:
        given = case.make()
        tb.train(given, tb.find(given, METHODS[method], progress=False))

    if case.says == "":
        run()
    elif isinstance(case.says, str):
        with pytest.raises(tb.TombolaError, match=case.says) as refusal:
            run()
        assert "\n" not in str(refusal.value)
    else:
        with pytest.raises(case.says) as raised:
            run()
        assert not isinstance(raised.value, tb.TombolaError)


@pytest.mark.parametrize("name", CASES)
def test_nonsense_is_refused_in_a_sentence_and_the_users_errors_are_passed_on(name):
    come_to(CASES[name], "random")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tombola.methods.SearchWarning")  # one epoch is short
@pytest.mark.filterwarnings("ignore::tombola.tickets.TieWarning")  # bf16 has few numbers
@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("name", CASES)
def test_nonsense_comes_to_the_same_with_every_method(name, method):
    come_to(CASES[name], method)


def test_forty_conditions_are_tried():
    assert len(CASES) >= 40
    assert sum(isinstance(case.says, str) and case.says != "" for case in CASES.values()) >= 40


@pytest.mark.parametrize("entry", ["find", "train", "check", "compare", "train_together", "execute"])
def test_every_entry_looks_at_the_first_batch(entry, tmp_path):
    given = CASES["accuracy of numbers"].make()
    method, engine = METHODS["random"], tb.Engine(tb.Store(tmp_path))
    calls = {
        "find": lambda: tb.find(given, method),
        "train": lambda: tb.train(given),
        "check": lambda: tb.check(given, method, seeds=1, engine=engine),
        "compare": lambda: tb.compare(given, [method], seeds=1, engine=engine),
        "train_together": lambda: tb.training.train_together(given, [tb.training.Member(0), tb.training.Member(1)]),
        "execute": lambda: tb.execute([tb.RunSpec(given)], tb.Store(tmp_path)),
    }
    with pytest.raises(tb.TombolaError, match='metric="r2"'):
        calls[entry]()
    assert list(tmp_path.iterdir()) == []


def test_a_task_is_looked_at_once_and_nothing_is_left_of_it():
    calls = []
    given = toy_task()
    given = tb.SupervisedTask(
        given.model, given.data, recipe=given.recipe, forward=lambda model, inputs: calls.append(1) or model(inputs)
    )
    state = torch.get_rng_state()
    check_first_batch(given)
    assert torch.equal(torch.get_rng_state(), state)
    looked = len(calls)
    check_first_batch(given)
    assert len(calls) == looked
    plain = toy_task()
    assert tb.find(plain, METHODS["synflow"]).digest == tb.find(given, METHODS["synflow"]).digest


def test_a_users_own_test_split_is_not_read_by_a_search():
    read = []

    class Noting(TaskWrapper):
        def batches(self, split, seed, epoch):
            read.append(split)
            return self.task.batches(split, seed, epoch)

    tb.find(Noting(toy_task(epochs=1)), METHODS["snip"])
    assert "test" not in read


class Masked(nn.Module):
    """Takes NaN for a missing number, as a network may."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, inputs):
        return self.body(inputs.nan_to_num())


def test_what_a_network_or_loss_can_do_with_is_not_refused():
    holes = INPUTS.clone()
    holes[::5, 2] = torch.nan
    check_first_batch(task(Masked, data(holes)))
    missing = INPUTS[:, :3].clone()
    missing[1::4, 0] = torch.nan

    def of_known(outputs, targets):
        known = ~targets.isnan()
        return F.mse_loss(outputs[known], targets[known])

    check_first_batch(
        task(targets_of(missing), data(targets=missing), loss=of_known, metric=lambda o, t: -of_known(o, t))
    )
    check_first_batch(
        task(
            given=data(targets=F.one_hot(CLASSES).float()),
            metric=lambda o, t: (o.argmax(1) == t.argmax(1)).float().mean(),
        )
    )
    check_first_batch(
        task(
            lambda: mlp(1),
            data(targets=INPUTS[:, 0]),
            loss=lambda o, t: F.mse_loss(o.squeeze(1), t),
            metric=lambda o, t: -(o[:, 0] - t).abs().mean(),
        )
    )


class Counting:
    """A loss that grows with each call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs, targets):
        self.calls += 1
        return F.cross_entropy(outputs, targets) * (1 + 0.1 * self.calls)


class Remembering(nn.Module):
    """A network that keeps a state in no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.state = conv(), 0.0

    def forward(self, inputs):
        self.state = self.body(inputs).detach().mean(0) + self.state
        return self.body(inputs) + self.state


class Warming(nn.Module):
    """A network that counts its training steps in no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.steps = conv(), 0

    def forward(self, inputs):
        self.steps += self.training
        return self.body(inputs) * (0.1 + self.steps)


class Unregistered(nn.Module):
    """A network with a weight that it does not know of."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.weight = conv(), torch.ones(8, requires_grad=True)

    def forward(self, inputs):
        return self.body(inputs * self.weight)


class Normalising(nn.Module):
    """A network that changes its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv()

    def forward(self, inputs):
        return self.body(inputs.sub_(1.0))


def delayed():
    """A loss that does the same at first, and counts."""
    calls = []

    def loss(outputs, targets):
        calls.append(1)
        return F.cross_entropy(outputs, targets) * (1 + len(calls) // 100)

    return loss


CENTRES = nn.Parameter(torch.zeros(3, 3))


@pytest.mark.parametrize(
    ("says", "make"),
    [
        ("the loss changes as it is called", lambda: task(loss=Counting())),
        ("the loss changes as it is called", lambda: task(loss=delayed())),
        ("the metric changes as it is called", lambda: task(metric=Counting())),
        ("the network gives something else", lambda: task(Remembering)),
        ("the network gives something else", lambda: task(Warming)),
        (r"a tensor of shape \(8,\) that requires a gradient", lambda: task(Unregistered)),
        ("the network gives something else", lambda: task(Normalising, data(INPUTS.clone()))),
        (
            "the loss changes its targets in place",
            lambda: task(conv, data(INPUTS, CLASSES.clone()), loss=lambda o, t: F.cross_entropy(o, t.clamp_(max=1))),
        ),
        (
            "the metric changes its targets in place",
            lambda: task(conv, data(INPUTS, CLASSES.clone()), metric=lambda o, t: t.clamp_(max=1).float().mean()),
        ),
        (
            r"a tensor of shape \(3, 3\) that requires a gradient and is none of the network's",
            lambda: task(loss=lambda o, t: F.cross_entropy(o, t) + (o - CENTRES[t]).square().mean()),
        ),
    ],
)
def test_what_lasts_from_call_to_call_in_no_network_is_told(says, make):
    with pytest.warns(StateWarning, match=says):
        check_first_batch(make())


def test_a_teacher_that_only_looks_is_not_told_of():
    teacher = conv().eval()

    def loss(outputs, targets):
        with torch.no_grad():
            aims = teacher(INPUTS[: len(targets)])
        return F.cross_entropy(outputs, targets) + F.mse_loss(outputs, aims)

    check_first_batch(task(loss=loss))


def test_a_metric_of_targets_that_are_all_alike_is_told():
    alike = torch.ones(60, 1)
    with pytest.warns(MeasureWarning, match="the metric of the split 'test' is nan"):
        tb.train(task(lambda: mlp(1), data(validation=EMPTY, targets=alike), loss="mse"))


def targets_of(targets):
    return lambda: mlp(targets.shape[1])


def test_a_network_may_give_more_in_training_than_its_metric_takes():
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = conv()

        def forward(self, inputs):
            outputs = self.body(inputs)
            return (outputs, outputs) if self.training else outputs

    def loss(outputs, targets):
        return F.cross_entropy(outputs[0] if isinstance(outputs, tuple) else outputs, targets)

    check_first_batch(task(Auxiliary, loss=loss))


def test_a_network_that_is_detached_in_evaluation_alone_is_trained():
    class Quiet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = conv()

        def forward(self, inputs):
            outputs = self.body(inputs)
            return outputs if self.training else outputs.detach()

    check_first_batch(task(Quiet))


def test_a_named_loss_brings_its_metric_and_both_may_be_functions():
    numbers = data(targets=INPUTS[:, :1] * 2)
    given = task(lambda: mlp(1), numbers, loss="mse")
    assert given.loss is F.mse_loss
    assert given.metric == METRICS["r2"]
    result = tb.train(given)
    assert result.metric <= 1
    assert task(lambda: mlp(1), numbers, loss="mse", metric="negative-mae").metric is METRICS["negative-mae"]
    assert identity(task(loss="cross-entropy").loss) == identity(task().loss) == "torch.nn.functional.cross_entropy"
    assert task().metric is tb.training.accuracy
    with pytest.raises(tb.TombolaError, match="did you mean 'r2'"):
        task(metric="r")


@pytest.mark.parametrize("name", LOSSES.own)
def test_every_loss_and_its_metric_take_what_they_say(name):
    generator = torch.Generator().manual_seed(0)
    outputs, targets = {
        "classes": (torch.randn(6, 4, generator=generator), torch.arange(6) % 4),
        "binary": (torch.randn(6, 1, generator=generator), torch.arange(6) % 2),
        "labels": (torch.randn(6, 4, generator=generator), torch.arange(24).reshape(6, 4) % 2),
        "numbers": (torch.randn(6, 2, generator=generator), torch.randn(6, 2, generator=generator)),
        "positions": (torch.randn(6, 4, 3, 3, generator=generator), torch.arange(54).reshape(6, 3, 3) % 4),
        "tokens": (torch.randn(6, 5, 9, generator=generator), torch.arange(30).reshape(6, 5) % 9),
        "": (torch.randn(6, 4, generator=generator), torch.arange(6) % 4),
    }[LOSSES.own[name].needs]
    outputs.requires_grad_()
    LOSSES[name](outputs, targets).backward()
    assert outputs.grad.abs().sum() > 0
    metric = METRICS[LOSSES.own[name].metric](outputs.detach(), targets)
    assert metric.shape == ()
    assert metric.isfinite()
    assert METRICS.own[LOSSES.own[name].metric].needs == LOSSES.own[name].needs or not LOSSES.own[name].needs


def test_losses_by_hand():
    outputs, classes = torch.tensor([[2.0, 0.0], [1.0, 3.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    weighted = F.cross_entropy(outputs, classes, weight=torch.tensor([1.0, 4.0]), label_smoothing=0.1)
    assert CrossEntropy((1.0, 4.0), 0.1)(outputs, classes) == weighted
    assert CrossEntropy((1.0, 4.0))(outputs, classes, label_smoothing=0.1) == weighted
    assert CrossEntropy(ignore_index=1)(outputs, classes) == F.cross_entropy(outputs[:2], classes[:2])
    with pytest.raises(tb.TombolaError, match="3 class_weights, but the network has 2"):
        CrossEntropy((1.0, 1.0, 1.0))(outputs, classes)
    logits, tokens = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    by_hand = F.cross_entropy(logits[:, :-1].reshape(-1, 7), tokens[:, 1:].reshape(-1))
    assert torch.allclose(NextToken(shift=True)(logits, tokens), by_hand)
    padded = tokens.clone()
    padded[:, 3:] = -100
    aligned = F.cross_entropy(logits[:, :3].reshape(-1, 7), tokens[:, :3].reshape(-1))
    assert torch.allclose(NextToken()(logits, padded), aligned)


def test_metrics_of_a_split_are_not_means_over_batches():
    generator = torch.Generator().manual_seed(3)
    outputs, classes = torch.randn(90, 4, generator=generator), torch.randint(4, (90,), generator=generator)
    said = outputs.argmax(1)
    recalls = [(said[classes == c] == c).double().mean() for c in range(4)]
    pairs = [((said == c) & (classes == c), (said == c) | (classes == c)) for c in range(4)]
    f1 = [2 * both.sum() / (both.sum() + either.sum()) for both, either in pairs]
    maps, labels = outputs.reshape(9, 10, 4).movedim(-1, 1), classes.reshape(9, 10)
    ious = [both.sum() / either.sum() for both, either in pairs]
    numbers, aims = torch.randn(90, 2, generator=generator), 50 + torch.randn(90, 2, generator=generator)
    errors, spread = (numbers + 50 - aims).square().sum(0), (aims - aims.mean(0)).square().sum(0)
    of_classes = torch.tensor([0.0, 0.0, 1.0])
    for metric, given, by_hand in (
        ("balanced-accuracy", (outputs, classes), sum(recalls) / 4),
        ("macro-f1", (outputs, classes), sum(f1) / 4),
        ("mean-iou", (maps, labels), sum(ious) / 4),
        ("pixel-accuracy", (maps, labels), (said == classes).double().mean()),
        ("r2", (numbers + 50, aims), (1 - errors / spread).mean()),
        ("top-5", (outputs, classes), torch.tensor(1.0)),
        ("negative-mae", (numbers, aims), -(numbers - aims).abs().mean()),
    ):
        tally = tb.training.Tally(METRICS[metric], torch.device("cpu"))
        for first in range(0, len(given[0]), 4):
            tally.add(given[0][first : first + 4], given[1][first : first + 4], len(given[0][first : first + 4]))
        assert tally.value(90 if given[0] is not maps else 9) == pytest.approx(float(by_hand), abs=1e-5), metric
    assert of_classes.sum() == 1
    ignored = labels.clone()
    ignored[:, 5:] = -100
    assert MeanIoU()(maps, ignored) == MeanIoU()(maps[..., :5], labels[..., :5])


@pytest.mark.parametrize(
    ("metric", "targets"), [("r2", INPUTS[:, :3]), (tb.training.BalancedAccuracy(), CLASSES), ("macro-f1", CLASSES)]
)
def test_networks_together_have_the_metric_of_each_alone(metric, targets):
    loss = "mse" if targets.is_floating_point() else "cross-entropy"
    given = task(mlp, data(targets=targets), loss=loss, metric=metric)
    together = tb.training.train_together(given, [tb.training.Member(0), tb.training.Member(1)])
    assert [result.together for result in together] == [2, 2]
    for seed, result in enumerate(together):
        alone = tb.train(given, seed=seed)
        assert result.metric == pytest.approx(alone.metric, abs=1e-5)
        assert result.validation == pytest.approx(alone.validation, abs=1e-5)


def test_a_network_learns_to_segment_and_to_tell_labels():
    given = task(
        segmenter,
        data(MAPS[:, None].float(), MAPS),
        loss="segmentation",
        recipe=tb.Recipe(epochs=8, batch=16, lr=0.3, precision="float32"),
    )
    assert tb.train(given).metric > 0.9
    labels = task(
        mlp,
        data(targets=(INPUTS[:, :3] > 0).float()),
        loss="multi-label-cross-entropy",
        metric="micro-f1",
        recipe=tb.Recipe(epochs=20, batch=16, lr=0.3, precision="float32"),
    )
    assert tb.train(labels).metric > 0.9


def segmenter():
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))


def test_a_score_of_ones_own_loop_takes_no_loss_a_sample():
    with pytest.raises(tb.TombolaError, match="reduction='mean'"):
        tb.scores.snip(mlp(), [(INPUTS, CLASSES)], nn.CrossEntropyLoss(reduction="none"))


def test_a_copy_of_what_a_factory_keeps_is_a_new_network():
    kept = conv()
    check_first_batch(task(lambda: copy.deepcopy(kept)))
    with pytest.raises(UsersError):
        check_first_batch(CASES["a loss that raises"].make())


MODULE = """
import torch

def data():
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    return {"train": (inputs, inputs[:, :1]), "test": (inputs, inputs[:, :1])}

def model():
    return torch.nn.Linear(4, 1)

def within(outputs, targets):
    return ((outputs - targets).abs() < 1).float().mean()
"""


def test_the_command_takes_a_loss_and_a_metric_by_name_and_by_function(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numbers_of_mine.py").write_text(MODULE)
    task = ["--data", "numbers_of_mine:data", "--model", "numbers_of_mine:model", "--recipe.epochs", "1"]
    assert main(["train", "dense", *task]) == 2
    assert 'metric="r2"' in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(["train", "dense", *task, "--task-loss", "mse", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metric"] < 1
    own = ["--task-loss", "l1", "--task-metric", "numbers_of_mine:within"]
    assert main(["find", "snip", *task, *own, "--density", "0.5", "--out", "t", "--json"]) == 0
    assert tb.Ticket.load("t/ticket.safetensors").provenance.task["task-loss"] == "l1"
    capsys.readouterr()
    assert main(["train", "t", *task[:4], "--json"]) == 2  # the file names code, which is not believed
    assert "--task-metric numbers_of_mine:within" in capsys.readouterr().err
    assert main(["train", "t", *task[:4], "--task-metric", "numbers_of_mine:within", "--json"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["metric"] <= 1
