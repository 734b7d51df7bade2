"""Adversarial training: the published steps, what is attacked and what is not, costs, early stopping, and refusals."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from networks import short_network
from tombola.studies import TaskOptions, make_task, options_from, task_words
from tombola.testing import toy_task
from tombola.testing.method import CountingTask
from tombola.tickets import tensors_of
from tombola.training import (
    Apgd,
    Attack,
    AttackWarning,
    Observer,
    RobustCheck,
    Run,
    adversary_of,
    robust_metric,
    task_identity,
    with_attack,
    with_recipe,
    without_attack,
)

RANGE = (-9.0, 9.0)
RECIPE = tb.Recipe(epochs=2, batch=20, lr=0.05, precision="float32", weight_decay=1e-3)
CLEAN = replace(toy_task(short_network), recipe=RECIPE)
FEW = RobustCheck(steps=2, samples=12)


SMALL = Attack(0.02, steps=2)


def attacked_task(task=CLEAN, attack=SMALL, check=FEW, data_range=RANGE):
    return tb.adversarial(task, attack, data_range=data_range, check=check)


def published(model, batches, epsilon, step, steps, low, high):
    """An epoch of the authors' training: attacked in evaluation mode from the clean images, then one update."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for images, targets in batches:
        model.eval()
        attacked = images
        for _ in range(steps):
            attacked = attacked.clone().requires_grad_()
            F.cross_entropy(model(attacked), targets).backward()
            moved = attacked.detach() + step * attacked.grad.sign() - images
            attacked = (images + moved.clamp(-epsilon, epsilon)).clamp(low, high)
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(attacked), targets).backward()
        optimizer.step()


@pytest.mark.parametrize(("steps", "step"), [(4, 0.1), (1, 0.3)])
def test_training_takes_the_published_steps(steps, step):
    def without_dropout():
        return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))

    recipe = replace(RECIPE, epochs=1, schedule="constant")
    clean = replace(CLEAN, model=without_dropout, recipe=recipe)
    task = attacked_task(clean, Attack(0.3, "data", steps, step, "clean"), data_range=(-1.5, 9.0), check=FEW)
    images, targets = clean.data["train"]
    inside = (images.clamp(-1.5, 9.0), targets)
    clean = replace(clean, data={**clean.data, "train": inside})
    task = replace(task, task=clean)
    own, theirs = clean.build(0), clean.build(0)
    Run(0).stage("train", task, own)
    published(theirs, clean.batches("train", 0, 0), 0.3, step, steps, -1.5, 9.0)
    for name, value in tensors_of(own).items():
        torch.testing.assert_close(value, tensors_of(theirs)[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attack", [Attack.fast(0.02), Apgd(0.02, steps=2)])
def test_the_ledger_counts_every_pass_and_the_result_is_the_same_again(attack):
    counting = CountingTask(**{name: value for name, value in vars(CLEAN).items() if not name.startswith("_")})
    task = attacked_task(counting, attack, RobustCheck(("pgd", "apgd"), steps=2, samples=12))
    run, model = Run(0), task.build(0)
    watch = tb.training.RobustWatch(task)
    fitted = run.stage("train", task, model, observers=[watch])
    assert run.cost.samples_backward == counting.counted["backward"]
    assert run.cost.samples_forward == counting.counted["forward"]
    assert run.cost.dense_epochs == 2
    assert fitted.history[-1].keys() >= {"validation_metric", "robust_pgd", "robust_apgd"}
    again = task.build(0)
    Run(0).stage("train", task, again)
    assert all(torch.equal(value, tensors_of(again)[name]) for name, value in tensors_of(model).items())


def test_everything_that_trains_on_the_task_is_attacked():
    """Dense, a ticket and two searches, of a score and of trained scores, end elsewhere than on the clean task."""
    task = attacked_task(check=FEW)

    def weights(trained):
        return torch.cat([p.detach().flatten() for p in trained.model.parameters()])

    assert not torch.equal(weights(tb.train(task)), weights(tb.train(CLEAN)))
    ticket = tb.find(CLEAN, tb.OneShot(0.3))
    assert not torch.equal(weights(tb.train(task, ticket)), weights(tb.train(CLEAN, ticket)))
    for method in (tb.OneShot(0.3), tb.GemMiner(0.3)):
        found, clean = tb.find(task, method), tb.find(CLEAN, method)
        assert found.mask.total_kept == clean.mask.total_kept
        assert found.mask != clean.mask


def test_a_verdict_has_robust_accuracy_beside_clean_accuracy():
    verdict = tb.check(attacked_task(), tb.OneShot(0.3), seeds=1, controls=())
    assert "robust-accuracy" in str(verdict)
    with pytest.raises(tb.TombolaError, match="robust-accuracy is a measure of adversarial tasks"):
        tb.check(CLEAN, tb.OneShot(0.3), also=("robust-accuracy",))


def test_training_stops_early_and_leaves_the_best_weights():
    """Without an attack worth the name robust accuracy is validation accuracy, so that it is known which is best."""
    check = RobustCheck(steps=1, samples=12, patience=2, keep="best")
    recipe = replace(RECIPE, epochs=30)
    task = attacked_task(replace(CLEAN, recipe=recipe), Attack(0.0, steps=1), check)
    trained = tb.train(task, seed=1)
    values = [row["robust_pgd"] for row in trained.history]
    assert values == [row["validation_metric"] for row in trained.history]
    best = values.index(max(values))
    assert len(values) == trained.epochs == best + 3 < 30
    assert trained.validation == max(values)
    assert robust_metric(task, trained.model, Attack(0.0, steps=1), "validation")[0] == max(values)
    last = tb.train(replace(task, adversary=replace(task.adversary, check=replace(check, keep="last"))), seed=1)
    assert last.validation == values[-1]


class Kill(Observer):
    def __init__(self, at):
        self.at = at

    def after_step(self, state):
        if state.step == self.at:
            raise KeyboardInterrupt


def test_a_killed_training_comes_to_the_same_end(tmp_path):
    recipe = replace(RECIPE, epochs=3)
    task = attacked_task(replace(CLEAN, recipe=recipe), check=RobustCheck(steps=2, samples=12, keep="best"))
    whole = tb.train(task)
    run = Run(0, tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        run.stage("train", task, task.build(0), observers=[tb.training.RobustWatch(task), Kill(10)])
    # A checkpoint knows its observers by their order.
    resumed = Run(0, tmp_path, checkpoint_seconds=0.0)
    model = task.build(0)
    fitted = resumed.stage("train", task, model, observers=[tb.training.RobustWatch(task), Kill(0)])
    assert [row["robust_pgd"] for row in fitted.history] == [row["robust_pgd"] for row in whole.history]
    assert all(torch.equal(value, tensors_of(whole.model)[name]) for name, value in tensors_of(model).items())


def test_the_task_says_what_attacks_it_wherever_it_goes():
    task = attacked_task()
    clean = task_identity(CLEAN, 0, RECIPE, "float32")
    own = task_identity(task, 0, RECIPE, "float32")
    assert "adversary" not in clean
    assert {name: value for name, value in own.items() if name != "adversary"} == clean
    assert own["adversary"]["attack"]["is"] == "attack@1"
    assert adversary_of(pickle.loads(pickle.dumps(task))) == task.adversary
    smaller = with_recipe(task, replace(RECIPE, batch=30))
    assert len(smaller.batches("train", 0, 0)) == 4
    assert adversary_of(smaller) == task.adversary
    assert adversary_of(with_attack(smaller, Attack.fgsm())).attack == Attack.fgsm()
    assert adversary_of(without_attack(smaller)) is None
    assert adversary_of(tb.adversarial(task, "fgsm", data_range=(0, 1)).task) is None
    labels = tb.find(task, tb.OneShot(0.3)).provenance.task
    assert labels["data-range"] == "-9.0 9.0"
    assert labels["attack-epsilon"] == "0.02"


def test_a_tickets_file_and_a_command_line_make_the_same_task():
    options = TaskOptions("digits", attack="pgd", attack_epsilon=0.05, attack_steps=3, data_range=("-2", "3"))
    labels = dict(make_task(options).labels)
    assert task_words(labels)[-3:] == ["--data-range", "-2.0", "3.0"]
    again = make_task(options_from(labels, []))
    assert again.adversary == make_task(options).adversary
    usual = make_task(TaskOptions("digits", attack="pgd"))
    assert make_task(options_from(usual.labels, [])).adversary == usual.adversary
    assert make_task(TaskOptions("digits", attack="fast")).adversary.attack == Attack.fast()
    with pytest.raises(tb.TombolaError, match="--data-range is for an attack"):
        make_task(TaskOptions("digits", data_range=("0", "1")))
    with pytest.raises(tb.TombolaError, match="give the lowest and the highest value"):
        make_task(TaskOptions("digits", attack="pgd", data_range=("zero", "1")))


def test_each_channel_may_have_a_range_of_its_own():
    inputs = torch.rand(40, 2, 8, 8) * torch.tensor([1.0, 4.0]).view(2, 1, 1)
    data = {split: (inputs, torch.arange(40) % 5) for split in ("train", "test")}

    def network():
        return nn.Sequential(nn.Flatten(), nn.Linear(128, 5))

    task = tb.adversarial(
        tb.SupervisedTask(network, data), Attack(0.5, steps=1, step=1.0, start="clean"), data_range=((0, 0), (1, 4))
    )
    attacked = tb.training.attacked_batches.Attacker(task, network(), RECIPE)(inputs, data["train"][1])
    moved = (attacked - inputs).abs().amax((0, 2, 3))
    assert moved[0] == pytest.approx(0.5, abs=1e-6)
    assert moved[1] == pytest.approx(2.0, abs=1e-6)
    assert attacked.amin() >= 0
    assert (attacked.amax((0, 2, 3)) <= torch.tensor([1.0, 4.0])).all()


def test_apgd_ascends_at_least_as_far_as_pgd():
    task = attacked_task()
    model = tb.train(CLEAN).model
    found = [robust_metric(task, model, attack)[0] for attack in (Attack(0.05, steps=10), Apgd(0.05, steps=20))]
    assert found[1] <= found[0] + 0.02
    clean = robust_metric(task, model, Attack(0.0))[0]
    assert found[1] < clean


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tb.adversarial(CLEAN), "data_range is missing: an attack must know"),
        (lambda: tb.adversarial(CLEAN, "pdg", data_range=RANGE), "no attack 'pdg'; did you mean 'pgd'"),
        (lambda: tb.adversarial(CLEAN, 3, data_range=RANGE), "the attack is a int; give"),
        (lambda: tb.adversarial(nn.Linear(1, 1), data_range=RANGE), "the task is a Linear; give a task"),
        (lambda: attacked_task(data_range=(1, 0)), "give the lowest and the highest value"),
        (lambda: attacked_task(data_range=5), "give the lowest and the highest value"),
        (lambda: attacked_task(data_range=((0, 0), (1, 1, 1))), "give the lowest and the highest value"),
        (lambda: Attack(-0.1), "ε is -0.1; give a number of at least 0"),
        (lambda: Attack(steps=0), "give at least one step"),
        (lambda: RobustCheck(by=()), "give an attack"),
        (lambda: robust_metric(CLEAN, CLEAN.build(0), Attack()), "the task is not adversarial"),
    ],
)
def test_what_makes_no_attack_is_refused(make, says):
    with pytest.raises(tb.TombolaError, match=says):
        make()


def test_one_input_outside_the_range_is_found_wherever_it_is():
    inputs, targets = CLEAN.data["train"]
    inputs = torch.cat([inputs[:-1], inputs[-1:] + 50])
    with pytest.raises(tb.TombolaError, match="outside data_range"):
        tb.train(attacked_task(replace(CLEAN, data={**CLEAN.data, "train": (inputs, targets)})))


@pytest.mark.parametrize(
    ("change", "data_range", "says"),
    [
        (lambda inputs: (inputs > 0).long(), RANGE, r"this task's are torch.int64; give inputs that are one tensor"),
        (lambda inputs: {"x": inputs}, RANGE, "this task's are a dict"),
        (lambda inputs: inputs, (0, 1), r"outside data_range=\(0.0, 1.0\); give the range on the inputs' own scale"),
        (lambda inputs: inputs, ((-9, -9), (9, 9)), "data_range gives 2 numbers, and the inputs have the shape"),
    ],
)
def test_inputs_that_cannot_be_attacked_are_refused_before_training(change, data_range, says, monkeypatch):
    monkeypatch.setattr(Run, "stage", None)
    data = {split: (change(inputs), targets) for split, (inputs, targets) in CLEAN.data.items()}
    task = attacked_task(replace(CLEAN, data=data), data_range=data_range)
    with pytest.raises(tb.TombolaError, match=says):
        tb.train(task)


def test_apgd_of_what_are_no_classes_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(Run, "stage", None)
    data = {split: (inputs, targets.float()[:, None]) for split, (inputs, targets) in CLEAN.data.items()}

    def network():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 1))

    task = attacked_task(
        replace(CLEAN, model=network, data=data, loss=F.mse_loss, metric="r2"), check=RobustCheck(("apgd",))
    )
    with pytest.raises(tb.TombolaError, match="APGD ascends the cross-entropy of class numbers"):
        tb.train(task)


@pytest.mark.parametrize(
    ("attack", "data_range"), [(Attack(8.0), (0, 1)), (Attack(8.0, "data"), (0, 1)), (Attack(8.0), (0, 255))]
)
def test_an_attack_in_other_units_than_meant_is_told(attack, data_range):
    with pytest.warns(AttackWarning, match="ε is 8"):
        tb.adversarial(CLEAN, attack, data_range=data_range)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tb.adversarial(CLEAN, Attack(8.0, "data"), data_range=(0, 255))
