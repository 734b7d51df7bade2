"""A task's own optimizer and schedule, and what a recipe says beyond them, under the laws of every training."""

from __future__ import annotations

import math
import pickle
import random
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler as schedules

import tombola as tb
from killed import Kill
from tombola.registry import METHODS
from tombola.studies.narrowing import Blind
from tombola.testing import toy_task
from tombola.testing.method import DeadStaysDead
from tombola.tickets import Seed
from tombola.training import ByEpoch, Observer, Run, TaskWrapper, fingerprint, recipe_of, task_identity
from tombola.training.checkpoint import Checkpoint
from tombola.training.loop import fit
from tombola.training.optimizers import OPTIMIZERS


def matrices() -> nn.Module:
    """No biases, since muon moves matrices alone."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12, bias=False), nn.ReLU(), nn.Linear(12, 5, bias=False))


TASK = toy_task(matrices)


def task_of(task=TASK, **recipe):
    own = {name: recipe.pop(name) for name in ("optimizer", "scheduler") if callable(recipe.get(name))}
    return replace(task, recipe=replace(task.recipe, **recipe), **own)


def two_rates(model: nn.Module) -> optim.Optimizer:
    named = dict(model.named_parameters())
    groups = [{"params": [named["1.weight"]], "lr": 0.2}, {"params": [named["3.weight"]], "weight_decay": 0.1}]
    return optim.SGD(groups, lr=0.05, momentum=0.9)


def trained(task, checkpoint=None, kill=0, attached=None, observers=(), watch=True):
    """Values, history and cost of a training without times; a mask's dead weights are looked at after every step."""
    model = task.build(0)
    watching = [DeadStaysDead(attached)] if attached is not None and watch else []
    done = fit(
        *(task, model, task.recipe), seed=3, attached=attached, checkpoint=checkpoint,
        observers=[*watching, *observers, Kill(kill)],
    )  # fmt: skip
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in done.history]
    return model.state_dict(), rows, replace(done.cost, seconds=0, peak_memory=0)


def assert_resumed_and_dead(task, folder, kill):
    mask = tb.select(tb.scores.magnitude(task.build(0)), 0.4)
    whole = trained(task, attached=mask)
    for name in mask:
        assert not whole[0][name][~mask[name]].any()
        assert whole[0][name].any()
    checkpoint = Checkpoint(folder / "going.pt", every=0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(task, checkpoint, kill, mask)
    assert checkpoint.load() is not None
    again = trained(task, checkpoint, attached=mask)
    assert all(torch.equal(value, whole[0][name]) for name, value in again[0].items())
    assert again[1:] == whole[1:]
    return whole


@pytest.mark.filterwarnings("ignore:the optimizer's '.*' does not have its parameter's shape")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_torch_keeps_dead_weights_dead_and_goes_on_after_a_kill(name, tmp_path):
    decay = {} if name == "rprop" else {"weight_decay": 0.01}
    task = task_of(optimizer=name, lr=0.01, epochs=3, accumulate=2, clip=1.0, ema=0.9, **decay)
    values, rows, _ = assert_resumed_and_dead(task, tmp_path, kill=4)
    start = task.build(0).state_dict()
    assert all((values[key] != start[key]).any() for key in start)
    assert all(math.isfinite(row["train_loss"]) for row in rows)


class Noisy(optim.SGD):
    """Keeps a count and random generators that its `state_dict` leaves out."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, lr=0.05, momentum=0.9)
        self.count, self.held = 0, torch.zeros(1)
        self.noise, self.python, self.numpy = torch.Generator(), random.Random(1), np.random.default_rng(1)

    def step(self, closure=None):
        self.count, self.held = self.count + 1, self.held + 1
        size = 0.1 * self.numpy.random() * self.python.random() / (self.count + float(self.held))
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.add_(torch.randn(parameter.shape, generator=self.noise), alpha=size)
        return super().step(closure)


def test_what_an_own_optimizer_keeps_outside_its_state_dict_goes_on_after_a_kill(tmp_path):
    task = task_of(optimizer=lambda model: Noisy(model.parameters()), epochs=3)
    assert_resumed_and_dead(task, tmp_path, kill=8)


SCHEDULERS = {
    "cosine": lambda optimizer, steps: schedules.CosineAnnealingLR(optimizer, steps),
    "one-cycle": lambda optimizer, steps: schedules.OneCycleLR(optimizer, 0.05, total_steps=steps),
    "function": lambda optimizer, steps: schedules.LambdaLR(optimizer, lambda step: 1 - step / steps),
    "one after another": lambda optimizer, steps: schedules.SequentialLR(
        optimizer, [schedules.LinearLR(optimizer, total_iters=3), schedules.CosineAnnealingLR(optimizer, steps)], [3]
    ),
    "milestones": ByEpoch(lambda optimizer, epochs: schedules.MultiStepLR(optimizer, [1, epochs - 1])),
    "plateau": lambda optimizer, steps: schedules.ReduceLROnPlateau(optimizer, patience=0, threshold=10),
}


@pytest.mark.parametrize("own", [None, two_rates], ids=["the recipe's optimizer", "an own one"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_an_own_schedule_is_followed_and_goes_on_after_a_kill(name, own, tmp_path):
    task = replace(TASK, optimizer=own, scheduler=SCHEDULERS[name], recipe=replace(TASK.recipe, epochs=3))
    _, rows, _ = assert_resumed_and_dead(task, tmp_path, kill=8)
    # The same by hand: six steps an epoch, and the learning rate of the last one.
    by_epoch = name in ("milestones", "plateau")
    optimizer = own(matrices()) if own else optim.SGD(matrices().parameters(), lr=0.05, momentum=0.9)
    scheduler, rates = SCHEDULERS[name](optimizer, 3 if by_epoch else 18), []
    for row in rows:
        for _ in range(6):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            _ = None if by_epoch else scheduler.step()
        if by_epoch:
            scheduler.step(*([row["validation_loss"]] if name == "plateau" else []))
    assert [row["lr"] for row in rows] == rates[5::6]
    assert len(set(rates)) > 1


def test_a_schedule_begins_where_a_rewound_ticket_does():
    seen = []
    task = task_of(scheduler=SCHEDULERS["function"], epochs=3, start="7it")
    trained(task, observers=[Rates(seen)])
    assert seen == pytest.approx([0.05 * (1 - step / 18) for step in range(7, 18)])


class Rates(Observer):
    """Notes the learning rate of a group in each step."""

    def __init__(self, seen, group=0):
        self.seen, self.group, self.hooked = seen, group, False

    def epoch_begin(self, state):
        if not self.hooked:
            state.optimizer.register_step_pre_hook(lambda own, *_: self.seen.append(own.param_groups[self.group]["lr"]))
        self.hooked = True


def test_the_recipes_schedule_scales_the_rate_of_each_group(tmp_path):
    task, first, second = task_of(optimizer=two_rates), [], []
    assert_resumed_and_dead(task, tmp_path, kill=8)
    recipe = task.recipe
    trained(task, observers=[Rates(first), Rates(second, 1)])
    assert first == pytest.approx([0.2 * recipe.lr_at(step, 6) / recipe.lr for step in range(12)])
    assert second == pytest.approx([recipe.lr_at(step, 6) for step in range(12)])
    # What a ticket prescribes counts in shares of the task's learning rate.
    ticket = tb.Ticket(tb.Mask({}), Seed(0, ""), recipe={"lr": recipe.lr / 10, "schedule": "constant"})
    seen: list[float] = []
    fit(task, task.build(0), recipe_of(task, ticket), seed=0, observers=[Rates(seen)])
    assert seen == pytest.approx([0.02] * 12)


def test_the_recipes_optimizer_as_an_own_one_gives_the_same_bits():
    own = task_of(optimizer=lambda model: TASK.recipe.make_optimizer(model.parameters()))
    assert all(torch.equal(value, trained(TASK)[0][name]) for name, value in trained(own)[0].items())


def test_options_reach_the_optimizer():
    recipe = tb.Recipe(optimizer="adam", options={"betas": (0.8, 0.9), "amsgrad": True})
    assert recipe == tb.Recipe(optimizer="adam", options=("amsgrad=true", "betas=.80,0.9"))
    (group,) = recipe.make_optimizer(matrices().parameters()).param_groups
    assert (group["betas"], group["amsgrad"], group["lr"]) == ((0.8, 0.9), True, 0.1)


# Accumulation, clipping, averages


def test_accumulated_batches_are_one_large_batch_also_at_the_end_of_an_epoch():
    # 108 samples: three steps of 40, 40 and 28 either way.
    large, small = trained(task_of(batch=40)), trained(task_of(batch=20, accumulate=2))
    for name, value in large[0].items():
        assert torch.allclose(value, small[0][name], atol=1e-5)
    assert [row["train_loss"] for row in large[1]] == pytest.approx([row["train_loss"] for row in small[1]], abs=1e-5)
    assert replace(large[2], step_memory=0) == replace(small[2], step_memory=0)
    assert small[2].step_memory < large[2].step_memory


def test_steps_count_optimizer_steps():
    seen, snapshot = [], tb.training.Snapshot(tb.training.Step.parse("1ep"))
    task = task_of(accumulate=4)
    assert task.recipe.steps(6) == 2
    trained(task, observers=[Rates(seen), snapshot])
    assert seen == [task.recipe.lr_at(step, 2) for step in range(4)]
    assert snapshot.epochs_spent == 1
    late = trained(task_of(accumulate=4, start="3it"))
    assert late[2].samples_backward == 28  # the second group of the last epoch: batches of 20 and 8


@pytest.mark.parametrize("norm", [0.0, 1e-3])
def test_a_step_is_no_longer_than_the_clipped_gradient(norm):
    usual = {"epochs": 1, "batch": 108, "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    task = task_of(**usual, clip=norm)
    moved = [value - trained(task)[0][name] for name, value in task.build(0).state_dict().items()]
    length = float(torch.cat([part.flatten() for part in moved]).norm())
    assert length == pytest.approx(norm, rel=1e-3) if norm else length > 0.01
    task = task_of(**usual, clip_value=1e-4)
    moved = [value - trained(task)[0][name] for name, value in task.build(0).state_dict().items()]
    assert max(float(part.abs().max()) for part in moved) == pytest.approx(1e-4, rel=1e-2)


class Averaging(Observer):
    """An average by hand, of parameters and statistics."""

    def __init__(self, decay):
        self.decay, self.values, self.steps = decay, {}, 0

    def epoch_begin(self, state):
        if not self.values:
            self.values = {name: value.double() for name, value in state.model.state_dict().items()}

    def after_step(self, state):
        self.steps += 1
        keep = min(self.decay, self.steps / (9 + self.steps))
        for name, value in state.model.state_dict().items():
            whole = not value.is_floating_point()
            self.values[name] = value if whole else keep * self.values[name] + (1 - keep) * value.double()


def test_the_trained_network_is_the_average_and_validation_sees_it():
    task = task_of(toy_task(), ema=0.4)
    own, mask = Averaging(0.4), tb.select(tb.scores.magnitude(task.build(0)), 0.4)
    values, rows, cost = trained(task, attached=mask, observers=[own])
    for name, value in values.items():
        assert torch.allclose(value.double(), own.values[name].double(), atol=1e-6), name
    model = task.build(0)
    model.load_state_dict(values)
    metric, loss, _ = tb.training.evaluate(task, model, "validation", task.recipe)
    assert (metric, loss) == (rows[-1]["validation_metric"], rows[-1]["validation_loss"])
    raw = trained(replace(task, recipe=replace(task.recipe, ema=0.0)), attached=mask)
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in raw[1]]
    assert cost.step_memory - raw[2].step_memory == sum(value.nbytes for value in values.values())


@pytest.mark.parametrize(("name", "changes"), [("gradual", {}), ("rigl", {"every": "2it"})])
def test_an_average_follows_a_mask_that_moves(name, changes):
    ticket = tb.find(task_of(toy_task(epochs=3), ema=0.9), replace(METHODS[name], density=0.3, **changes))
    for own in ticket.mask:
        assert not ticket.start.tensors[own][~ticket.mask[own]].any()


def test_an_average_leaves_frozen_weights_where_they_are():
    task = task_of(ema=0.9)
    mask = tb.select(tb.scores.magnitude(task.build(0)), 0.4)
    values, _, _ = trained(task, attached=tb.Ticket(mask, Seed(0, ""), dead="frozen"), watch=False)
    for name, before in task.build(0).state_dict().items():
        assert torch.equal(values[name][~mask[name]], before[~mask[name]])
        assert (values[name] != before)[mask[name]].any()


def test_no_step_leaves_the_network_and_not_an_average():
    task = task_of(ema=0.9, start="2ep")
    assert all(torch.equal(value, trained(task)[0][name]) for name, value in task.build(0).state_dict().items())


# Half precision with a scaled loss, as it would be on a GPU


def test_a_scaled_loss_trains_keeps_what_overflows_out_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(tb.Recipe, "resolved_precision", lambda recipe, device: "fp16")
    task = task_of(clip=1.0, accumulate=2, scheduler=SCHEDULERS["cosine"], epochs=3)
    _, rows, _ = assert_resumed_and_dead(task, tmp_path, kill=4)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    single = trained(task)[0]
    monkeypatch.setattr(tb.Recipe, "resolved_precision", lambda recipe, device: "float32")
    for name, value in trained(task)[0].items():
        assert torch.allclose(value, single[name], atol=0.02)


def test_an_overflow_moves_no_weight_and_tells_no_observer(monkeypatch):
    monkeypatch.setattr(tb.Recipe, "resolved_precision", lambda recipe, device: "fp16")
    seen: list[float] = []

    def huge(outputs, targets):
        return nn.functional.cross_entropy(outputs, targets) * 1e36

    values, _, _ = trained(replace(task_of(epochs=1), loss=huge), observers=[Gradients(seen)])
    assert all(torch.equal(value, values[name]) for name, value in TASK.build(0).state_dict().items())
    assert seen == []


class Gradients(Observer):
    def __init__(self, seen):
        self.seen = seen

    def before_step(self, state):
        self.seen.append(1)


# Who uses it


def test_scores_are_not_trained_by_the_tasks_own_optimizer_and_weights_are():
    asked = []

    def noting(model):
        asked.append(type(model))
        return two_rates(model)

    task = task_of(optimizer=noting)
    for name in ("gem-miner", "edge-popup"):
        tb.find(task, replace(METHODS[name], density=0.5))
    assert asked == []
    tb.find(task, replace(METHODS["concrete-ticket-search"], density=0.5, rewind="1ep"))
    assert asked == [nn.Sequential]  # the dense network, up to where the search begins
    tb.find(task, replace(METHODS["imp"], density=0.5, count=1))
    assert asked == [nn.Sequential] * 2
    tb.find(Blind(task), replace(METHODS["gradual"], density=0.5))
    assert asked == [nn.Sequential] * 3


def test_a_search_clips_and_averages_no_scores():
    usual = tb.find(TASK, replace(METHODS["gem-miner"], density=0.5))
    changed = task_of(clip=1e-9, clip_value=1e-9, ema=0.9, optimizer="adam", options={"betas": (0.1, 0.2)})
    assert tb.find(changed, replace(METHODS["gem-miner"], density=0.5)).mask == usual.mask


@pytest.mark.parametrize("changes", [{"optimizer": two_rates}, {"optimizer": "rmsprop"}])
def test_continuous_sparsification_says_what_it_needs(changes):
    with pytest.raises(tb.TombolaError, match="weights and scores with one optimizer"):
        tb.find(task_of(**changes), METHODS["continuous-sparsification"])


def test_gradients_of_weights_that_an_own_optimizer_leaves_alone_do_not_add_up():
    sizes = []

    class Look(Observer):
        def before_step(self, state):
            sizes.append(float(state.model[1].weight.grad.norm()))

    trained(task_of(optimizer=lambda model: optim.SGD([model[3].weight], lr=1e-9)), observers=[Look()])
    assert max(sizes) < 3 * min(sizes)


def test_an_own_optimizers_memory_is_that_of_its_state():
    adam = trained(task_of(optimizer="adam", lr=0.01))[2].step_memory
    own = partial(lambda rate, model: optim.Adam(model.parameters(), lr=rate), 0.01)
    assert trained(task_of(optimizer=own))[2].step_memory == adam
    assert trained(task_of(optimizer="adam", options=["amsgrad=true"]))[2].step_memory == adam + 4 * (64 * 12 + 12 * 5)


# What a run is


def test_a_run_is_named_by_the_factories_and_fields_that_it_uses_alone(tmp_path):
    def name_of(task):
        return fingerprint(task_identity(task, 0, task.recipe, "float32"))

    usual = task_identity(TASK, 0, TASK.recipe, "float32")
    assert not usual.keys() & {"optimizer", "scheduler"}
    assert not usual["recipe"].keys() & {"options", "clip", "clip_value", "accumulate", "ema"}
    others = [
        *({"clip": 0.5}, {"clip_value": 0.5}, {"accumulate": 2}, {"ema": 0.9}, {"options": {"dampening": 0.1}}),
        *({"optimizer": two_rates}, {"optimizer": lambda model: optim.SGD(model.parameters(), lr=0.1)}),
        {"optimizer": lambda model: optim.SGD(model.parameters(), lr=0.2)},
        *({"scheduler": SCHEDULERS["cosine"]}, {"scheduler": ByEpoch(SCHEDULERS["cosine"])}),
    ]
    assert len({name_of(task) for task in (TASK, *(task_of(**other) for other in others))}) == len(others) + 1
    wrapped = tb.training.with_recipe(task_of(optimizer=two_rates), TASK.recipe)
    assert name_of(wrapped) == name_of(task_of(optimizer=two_rates))


def test_a_learning_rate_of_a_run_is_refused_beside_an_own_optimizer(tmp_path):
    spec = tb.RunSpec(task_of(optimizer=two_rates), lr=0.2)
    with pytest.raises(tb.TombolaError, match="own optimizer has learning rates of its own; leave lr out"):
        tb.execute([spec], tb.Store(tmp_path))


def test_what_a_ticket_prescribes_is_checked(tmp_path):
    for recipe, words in (
        ({"clip": -1.0}, "clip is -1.0"),
        ({"accumulate": 10**30}, "accumulate is larger"),
        ({"options": ["params=1"]}, "no option of sgd 'params'"),
        ({"options": ["=1"]}, "give numbers"),
        ({"ema": "0.9"}, "ema is '0.9'"),
        ({"optimizer": "Optimizer"}, "no recipe with optimizer"),
    ):
        tb.Ticket(tb.Mask({}), Seed(0, ""), recipe=recipe).save(tmp_path / "t.safetensors")
        with pytest.raises(tb.TombolaError, match=words):
            recipe_of(TASK, tb.Ticket.load(tmp_path / "t.safetensors"))
    tb.Ticket(tb.Mask({}), Seed(0, ""), recipe={"options": ["dampening=0.1"]}).save(tmp_path / "t.safetensors")
    assert recipe_of(TASK, tb.Ticket.load(tmp_path / "t.safetensors")).options == ("dampening=0.1",)


def test_a_divergence_speaks_of_a_checkpoint_only_if_there_is_one(tmp_path):
    with pytest.raises(tb.training.Diverged, match=r"at step \d+ of train; lower"):
        tb.train(task_of(lr=1e30))
    with pytest.raises(tb.training.Diverged, match=r"at step \d+ of train; the last good checkpoint is kept: lower"):
        tb.train(
            task_of(optimizer=lambda model: Exploding(model.parameters()), epochs=3),
            run=Run(folder=tmp_path, checkpoint_seconds=0.0),
        )


class Exploding(optim.SGD):
    """Good for an epoch."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.01)
        self.left = 8

    def step(self, closure=None):
        self.left -= 1
        self.param_groups[0]["lr"] = 1e30 if self.left < 0 else 0.01
        return super().step(closure)


# What is refused


class Closing(optim.SGD):
    def step(self, closure):
        return super().step(closure)


class Numbers(schedules.LRScheduler):
    """Keeps something that no checkpoint holds."""

    def __init__(self, optimizer):
        self.kept = object()
        super().__init__(optimizer)

    def get_lr(self):
        return [group["lr"] for group in self.optimizer.param_groups]


FOREIGN = optim.SGD(matrices().parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"optimizer": optim.Adam}, "is the class Adam, whose arguments are others"),
        ({"optimizer": partial(optim.Adam, lr=0.1)}, "is the class Adam"),
        ({"optimizer": FOREIGN}, "the task's optimizer is a SGD, but each network needs one of its own"),
        ({"optimizer": "adam"}, "the task's optimizer is a str"),
        ({"optimizer": lambda: None}, "cannot be called with the network"),
        ({"scheduler": lambda optimizer: None}, r"how often it steps .*tb.training.ByEpoch"),
        ({"scheduler": schedules.ExponentialLR}, "is the class ExponentialLR, whose arguments are others"),
        ({"scheduler": ByEpoch(partial(schedules.StepLR, step_size=3))}, "is the class StepLR"),
    ],
    ids=range(8),
)
def test_a_factory_that_is_none_is_refused_where_it_is_given(own, words):
    with pytest.raises(tb.TombolaError, match=words):
        replace(TASK, **own)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"optimizer": lambda model: None}, "gave a NoneType; it must return one torch.optim.Optimizer"),
        ({"optimizer": lambda model: [optim.SGD(model.parameters())]}, "gave a list"),
        ({"optimizer": lambda model: FOREIGN}, r"a parameter of shape \(12, 64\) that is not the network's"),
        ({"optimizer": lambda model: optim.LBFGS(model.parameters())}, "LBFGS needs a closure"),
        ({"optimizer": lambda model: Closing(model.parameters())}, "Closing needs a closure"),
        ({"scheduler": lambda optimizer, steps: None}, "scheduler gave a NoneType"),
        ({"scheduler": lambda *_: schedules.StepLR(FOREIGN, 1)}, "scheduler is another optimizer's"),
        ({"scheduler": lambda optimizer, steps: Numbers(optimizer)}, "state of the task's scheduler holds a object"),
        ({"optimizer": two_rates, "recipe": replace(TASK.recipe, lr=0.0)}, "the recipe's lr is 0"),
        ({"recipe": replace(TASK.recipe, optimizer="muon"), "model": toy_task().model}, "muon moves matrices alone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_factory_gives_is_refused_before_any_step(own, words):
    with pytest.raises(tb.TombolaError, match=words):
        tb.train(replace(TASK, **own))


@dataclass(frozen=True)
class WithoutValidation(TaskWrapper):
    def batches(self, split, seed, epoch):
        return [] if split == "validation" else self.task.batches(split, seed, epoch)


def test_a_schedule_that_follows_the_validation_loss_needs_one():
    task = WithoutValidation(replace(TASK, scheduler=SCHEDULERS["plateau"]))
    with pytest.raises(tb.TombolaError, match="loss on the validation split, which is empty"):
        tb.train(task)


def test_what_the_users_own_code_raises_stays_whole():
    with pytest.raises(ZeroDivisionError):
        tb.train(replace(TASK, optimizer=lambda model: optim.SGD(model.parameters(), lr=1 / 0)))


def test_a_task_with_factories_travels():
    task = pickle.loads(pickle.dumps(replace(TASK, optimizer=two_rates)))
    assert trained(task)[1] == trained(replace(TASK, optimizer=two_rates))[1]
