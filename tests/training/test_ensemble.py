"""Networks trained together are the networks trained alone."""

from __future__ import annotations

import pkgutil
from dataclasses import asdict, dataclass, replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

import tombola as tb
from made_up import run
from tombola.report.page_tables import _company
from tombola.studies.spec import digest, task_settings
from tombola.testing import toy_task
from tombola.training import Diverged, TaskWrapper, binary_accuracy, binary_cross_entropy
from tombola.training.ensemble.ensemble_training import pieces
from tombola.training.ensemble.stack import stacked


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


def partly_idle() -> nn.Module:
    model = mlp()
    model.register_parameter("idle", nn.Parameter(torch.ones(2)))
    return model


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


def members_of(task: tb.Task) -> list[tb.training.Member]:
    ticket = tb.find(task, tb.method("snip", density=0.4), seed=5, progress=False)
    held = replace(ticket, held=tuple(name for name, _ in task.build(0).named_parameters() if "bias" in name))
    return [
        tb.training.Member(0),
        tb.training.Member(1, masked(task, 1), init_seed=7, recipe={"lr": 0.1}),
        tb.training.Member(1, held, recipe={"schedule": "constant"}),
    ]


def assert_equal_alone(task: tb.Task, members: list[tb.training.Member]) -> list[tb.training.Trained]:
    """Weights, history and cost are those of each member's own training, to 1e-5; dead weights are exactly zero."""
    at_once, alone = tb.training.train_together(task, members), tb.training.train_together(task, members, chunk=1)
    for member, one, other in zip(members, at_once, alone, strict=True):
        assert (one.together, one.alone, other.together) == (len(members), "", 1)
        for name, expected in other.model.state_dict().items():
            torch.testing.assert_close(one.model.state_dict()[name], expected, rtol=1e-5, atol=1e-5)
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
    own = [tb.training.Member(seed, recipe={"schedule": name, "warmup": seed}) for seed, name in enumerate(schedules)]
    trained = assert_equal_alone(task, [*own, tb.training.Member(2, recipe={"schedule": "multistep", "gamma": 0.5})])
    assert len({one.history[6]["lr"] for one in trained}) == 6


@pytest.mark.parametrize(("model", "augment"), [(conv, ("crop", "flip")), (normed, ())])
def test_small_convolutional_networks_too(model, augment):
    task = task_of(model, (1, 6, 6), augment=augment)
    assert_equal_alone(task, members_of(task)[1:])


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none").square().mean()


@dataclass(frozen=True)
class Halved(TaskWrapper):
    """Another forward and another loss than those that are known."""

    def forward(self, model, inputs, /):
        return model(inputs / 2)

    def loss(self, outputs, targets, /, **options):
        return squared(outputs, targets)


@pytest.mark.parametrize("forward", [True, False])
def test_a_tasks_own_forward_and_loss_are_what_trains(forward):
    task = task_of()
    task = Halved(task) if forward else replace(task, loss=squared)
    assert_equal_alone(task, [tb.training.Member(0), tb.training.Member(1)])


def test_networks_of_one_logit():
    task = task_of(lambda: mlp(classes=1))
    data = {split: (inputs, (inputs[:, 0] > 0).long()) for split, (inputs, _) in task.data.items()}
    task = replace(task, data=data, loss=binary_cross_entropy, metric=binary_accuracy)
    assert_equal_alone(task, [tb.training.Member(0), tb.training.Member(1, recipe={"lr": 0.2})])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_targets_that_are_no_class_are_left_out_of_the_loss(smoothing):
    task = task_of(label_smoothing=smoothing)
    inputs, targets = task.data["train"]
    left_out = targets.index_fill(0, torch.arange(0, len(targets), 7), -100)
    task = replace(task, data={**task.data, "train": (inputs, left_out)}, metric=tb.training.BalancedAccuracy())
    assert_equal_alone(task, [tb.training.Member(0), tb.training.Member(1)])


def flattened(outputs: Tensor, targets: Tensor) -> Tensor:
    """Takes its outputs to lie in memory as a network gives them."""
    return (outputs.view(-1)[::3] > 0).float().mean()


@pytest.mark.parametrize(("model", "shape"), [(mlp, (6,)), (conv, (1, 6, 6))])
def test_a_metric_sees_outputs_as_of_a_network_alone(model, shape):
    task = replace(task_of(model, shape, epochs=1), metric=flattened)
    assert_equal_alone(task, [tb.training.Member(0), tb.training.Member(1)])


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (task_of(dropped, (1, 6, 6)), "'1' (Dropout) draws at random for each network"),
        (task_of(Chosen), "an operation of it cannot be batched"),
        (replace(task_of(), loss=F.multi_margin_loss), "an operation of it cannot be batched"),
        (task_of(precision="bf16"), "it trains in bf16; set the recipe's precision to float32"),
        (task_of(compile=True), "its recipe compiles it"),
        (task_of(partly_idle), "its 'idle' takes no part in the loss"),
        (task_of(partly_frozen), "not all of its parameters are trained in float32"),
        (replace(task_of(), optimizer=lambda model: optim.SGD(model.parameters())), "its task has an optimizer of its"),
        (
            replace(task_of(), scheduler=lambda own, steps: optim.lr_scheduler.LinearLR(own)),
            "its task has a scheduler of its own",
        ),
        (task_of(optimizer="rmsprop", lr=1e-3), "its optimizer is rmsprop; networks together train with sgd, adam or"),
        (task_of(options=["dampening=0.1"]), "its recipe sets options of its optimizer"),
        (task_of(clip=1.0), "its recipe clips gradients"),
        (task_of(accumulate=2), "its recipe accumulates gradients"),
        (task_of(ema=0.9), "its recipe averages weights"),
        (in_loaders(task_of()), "its training batches come from a DataLoader, not from tensors in memory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_batched_trains_one_after_another_and_says_why(task, words, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)
    task = replace(task, recipe=replace(task.recipe, epochs=1))
    trained = tb.training.train_together(task, [tb.training.Member(0), tb.training.Member(1)])
    assert [one.together for one in trained] == [1, 1]
    assert all(words in one.alone for one in trained)


def small_study(task: tb.Task, seeds: int = 2) -> list[tb.RunSpec]:
    """Dense networks, tickets with a control, and a learning rate of its own."""
    method = tb.method("snip", density=0.4)
    own = [tb.RunSpec(task, seed=seed) for seed in range(seeds)]
    own += [tb.RunSpec(task, method, control, seed) for seed in range(seeds) for control in ("", "shuffle")]
    return [*own, tb.RunSpec(task, seed=0, lr=0.2), tb.RunSpec(task, seed=0, extra_epochs=2)]


def untimed(result: tb.studies.Result) -> dict:
    """A result but for its times, the memory of the process, and where its ticket is."""
    content = asdict(result) | {"ticket": "", "command": ""}
    content["training"] |= {"seconds": 0.0, "peak_memory": 0}
    content["search"] = {key: 0 for key in content["search"]}
    content["history"] = [{k: v for k, v in row.items() if k != "seconds"} for row in content["history"]]
    return content


def weighted(weight):
    return lambda outputs, targets: weight * F.cross_entropy(outputs, targets)


@dataclass(frozen=True)
class Weighted(TaskWrapper):
    """A task whose loss depends on a field of it."""

    weight: float = 1.0

    def loss(self, outputs, targets):
        return self.weight * self.task.loss(outputs, targets)


def test_tasks_are_told_apart_by_what_their_functions_hold_and_by_what_is_set_aside():
    def named(own):
        return digest(task_settings(own, 0, torch.device("cpu")))

    task, each = toy_task(), torch.ones(5)
    others = [task, *(replace(task, validation=share) for share in (0.2, 0.3))]
    others += [replace(task, loss=weighted(own)) for own in (1.0, 2.0)]
    others += [replace(task, loss=partial(F.cross_entropy, weight=own)) for own in (each, 2 * each)]
    others += [Weighted(task, 1.0), Weighted(task, 2.0)]
    others += [replace(task, loss=lambda o, t, own=own: own * F.cross_entropy(o, t)) for own in (1.0, 2.0)]
    assert len({named(own) for own in others}) == len(others)
    assert named(replace(task, loss=weighted(2.0))) == named(replace(task, loss=weighted(2.0)))
    assert named(Weighted(task, 2.0)) == named(Weighted(task, 2.0))


def test_small_networks_of_a_study_train_at_once_and_its_results_say_so(tmp_path, monkeypatch):
    task = task_of()
    engine = tb.Engine(tb.Store(tmp_path / "at-once"))
    at_once = tb.execute(small_study(task), engine.store, engine.executor)
    assert [result.together for result in at_once] == [7] * 7 + [1]
    assert not list(engine.store.root.glob("together-*"))
    monkeypatch.setattr("tombola.studies.batch_training.SMALL", 0.0)
    alone = tb.execute(small_study(task), tb.Store(tmp_path / "alone"))
    for one, other in zip(at_once, alone, strict=True):
        assert (other.together, other.alone) == (1, "")
        assert one.metric == pytest.approx(other.metric, abs=0.011)
        assert one.digest == other.digest
        for row, expected in zip(one.history, other.history, strict=True):
            assert row.keys() == expected.keys()
            assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)
        same = {"settings", "training", "epochs", "layers", "weight_density", "effective_density"}
        assert {k: v for k, v in untimed(one).items() if k in same} == {
            k: v for k, v in untimed(other).items() if k in same
        }
    assert tb.execute(small_study(task), engine.store, engine.executor) == at_once


def test_a_study_of_small_networks_killed_anywhere_ends_as_if_undisturbed(tmp_path, monkeypatch):
    task = task_of()
    undisturbed = tb.execute(small_study(task), tb.Store(tmp_path / "undisturbed"))
    engine = tb.Engine(tb.Store(tmp_path / "killed"))
    monkeypatch.setattr("tombola.training.checkpoint.Checkpoint.due", lambda _: True)
    for name, calls in (("tombola.training.checkpoint.Checkpoint.save", 4), ("tombola.training.Run.keep", 3)):
        module, _, attribute = name.rpartition(".")
        with monkeypatch.context() as patched:
            patched.setattr(*killing(module, attribute, calls))
            with pytest.raises(KeyboardInterrupt):
                tb.execute(small_study(task), engine.store, engine.executor)
        assert len(list(engine.store.root.glob("together-*"))) == 1
    again = tb.execute(small_study(task), engine.store, engine.executor)
    assert [untimed(result) for result in again] == [untimed(result) for result in undisturbed]
    assert not list(engine.store.root.glob("together-*"))


def killing(module: str, attribute: str, calls: int) -> tuple[object, str, object]:
    """What patches a method so that its nth call is a kill."""
    owner = pkgutil.resolve_name(module)
    usual, left = getattr(owner, attribute), [calls]

    def method(*values, **named):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return usual(*values, **named)

    return owner, attribute, method


def test_what_is_finished_is_not_trained_again_and_what_is_new_trains_together(tmp_path):
    task = task_of()
    engine = tb.Engine(tb.Store(tmp_path))
    first = tb.execute([tb.RunSpec(task, seed=seed) for seed in range(2)], engine.store, engine.executor)
    more = tb.execute([tb.RunSpec(task, seed=seed) for seed in range(5)], engine.store, engine.executor)
    assert more[:2] == first
    assert [result.together for result in more] == [2, 2, 3, 3, 3]


def test_a_study_says_why_its_small_networks_train_alone(tmp_path):
    task = task_of(dropped, (1, 6, 6), epochs=1)
    results = tb.execute([tb.RunSpec(task, seed=seed) for seed in range(2)], tb.Store(tmp_path))
    assert {result.together for result in results} == {1}
    assert {result.alone for result in results} == {"'1' (Dropout) draws at random for each network"}


def test_one_network_that_diverges_stops_no_other():
    task = task_of()
    trained = tb.training.train_together(task, [tb.training.Member(0, recipe={"lr": 1e30}), tb.training.Member(1)])
    assert trained[0].diverged.startswith("the loss became")
    assert len(trained[0].history) < len(trained[1].history) == task.recipe.epochs
    assert trained[1].diverged == ""
    assert trained[1].metric > 0.5


def test_a_study_with_a_network_that_diverges_says_so_after_the_others_before_it(tmp_path):
    task, engine = task_of(), tb.Engine(tb.Store(tmp_path))
    with pytest.raises(Diverged, match="the loss became"):
        tb.execute(
            [tb.RunSpec(task, seed=0), tb.RunSpec(task, seed=1), tb.RunSpec(task, seed=1, lr=1e30)],
            engine.store,
            engine.executor,
        )
    assert [result.together for result in engine.store.results()] == [3, 3]


def test_chunks_are_as_even_as_they_come_and_memory_is_linear_in_their_members():
    assert [len(piece) for piece in pieces(range(10), 4)] == [3, 3, 4]
    task = task_of()
    held = []
    for count in (4, 8, 16):
        members = [tb.training.Member(seed) for seed in range(count)]
        recipes = [member.recipe_on(task) for member in members]
        models = [member.build(task) for member in members]
        stack = stacked(task, members, models, recipes, torch.device("cpu"))
        list(stack.feed.epoch(0))
        kept = {id(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors_within(stack)}
        held.append(sum(kept.values()))
    assert held[2] - held[1] == 2 * (held[1] - held[0])


def tensors_within(value: object, seen: set[int] | None = None) -> list[Tensor]:
    """Every tensor that an object of this package holds, but for the data."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, nn.Module | tb.SupervisedTask):
        return []
    seen.add(id(value))
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    own = vars(value).values() if type(value).__module__.startswith("tombola") else ()
    return [tensor for part in (*parts, *own) for tensor in tensors_within(part, seen)]


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(tb.TombolaError, match="chunk is 0"):
        tb.training.train_together(task_of(), [tb.training.Member()], chunk=0)


def test_a_killed_training_of_many_goes_on_and_leaves_the_callers_random_state(tmp_path, monkeypatch):
    task = task_of()
    members = [tb.training.Member(seed, masked(task, seed)) for seed in range(3)]
    monkeypatch.setattr("tombola.training.checkpoint.Checkpoint.due", lambda _: True)
    state = torch.get_rng_state()
    with monkeypatch.context() as patched:
        patched.setattr(*killing("tombola.training.checkpoint.Checkpoint", "save", 5))
        with pytest.raises(KeyboardInterrupt):
            tb.training.train_together(task, members, run=tb.Run(folder=tmp_path))
    undisturbed = tb.training.train_together(task, members)
    for _ in range(2):
        again = tb.training.train_together(task, members, run=tb.Run(folder=tmp_path))
        for one, other in zip(again, undisturbed, strict=True):
            assert all(
                torch.equal(own, expected)
                for own, expected in zip(one.model.parameters(), other.model.parameters(), strict=True)
            )
            assert [row["train_loss"] for row in one.history] == [row["train_loss"] for row in other.history]
    assert torch.equal(state, torch.get_rng_state())


def test_a_folder_gives_back_the_results_of_these_networks_on_this_task_alone(tmp_path):
    task, members = task_of(epochs=1), [tb.training.Member(0), tb.training.Member(1), tb.training.Member(2)]
    others = [replace(member, recipe={"lr": 0.2}) for member in members]
    changed = replace(task, data={**task.data, "train": (-task.data["train"][0], task.data["train"][1])})
    for own, those in [(task, members), (task, others), (changed, members), (replace(task, loss=squared), members)]:
        kept = tb.training.train_together(own, those[:2], run=tb.Run(folder=tmp_path))
        assert [one.loss for one in kept] == [one.loss for one in tb.training.train_together(own, those[:2])]
    assert len(tb.training.train_together(task, members, run=tb.Run(folder=tmp_path), chunk=2)) == 3


def test_a_killed_call_goes_on_in_the_chunks_that_it_began_with(tmp_path, monkeypatch):
    """What is free on a GPU, and with it the size of a chunk, is another the next time."""
    task, members = task_of(epochs=1), [tb.training.Member(seed) for seed in range(4)]
    for size in (2, 3):
        monkeypatch.setattr("tombola.training.ensemble.ensemble_training.chunk_size", lambda *_, size=size: size)
        trained = tb.training.train_together(task, members, run=tb.Run(folder=tmp_path))
        assert [one.together for one in trained] == [2, 2, 2, 2]
        monkeypatch.setattr("tombola.training.ensemble.ensemble_training.fit_together", None)


def test_a_killed_call_trains_no_network_again_that_trained_alone(tmp_path, monkeypatch):
    task, members = task_of(dropped, (1, 6, 6), epochs=1), [tb.training.Member(0), tb.training.Member(1)]
    undisturbed = tb.training.train_together(task, members)
    with monkeypatch.context() as patched:
        patched.setattr(*killing("tombola.training.Run", "keep", 2))
        with pytest.raises(KeyboardInterrupt):
            tb.training.train_together(task, members, run=tb.Run(folder=tmp_path))
    fitted = []
    usual = pkgutil.resolve_name("tombola.training.run.fit")
    monkeypatch.setattr("tombola.training.run.fit", lambda *own, **named: fitted.append(named) or usual(*own, **named))
    again = tb.training.train_together(task, members, run=tb.Run(folder=tmp_path))
    assert [one.loss for one in again] == [one.loss for one in undisturbed]
    assert [named["seed"] for named in fitted] == [1]


@pytest.mark.parametrize("model", [mlp, dropped])
def test_tickets_with_no_training_left_are_validated(model):
    task = task_of(model, (1, 6, 6) if model is dropped else (6,), epochs=1)
    ticket = tb.find(task, tb.methods.Gradual(density=0.5), progress=False)
    alone = tb.train(task, ticket)
    for one in tb.training.train_together(task, [tb.training.Member(0, ticket), tb.training.Member(1, ticket)]):
        assert one.history == alone.history == ()
        assert one.validation == pytest.approx(alone.validation)


def test_a_ticket_of_whole_channels_trains_as_a_smaller_network_and_alone():
    task = task_of(conv, (1, 6, 6), epochs=1)
    method = tb.OneShot(density=0.5, score=tb.scores.magnitude, granularity=tb.Channels())
    ticket = tb.find(task, method, progress=False)
    trained = tb.training.train_together(task, [tb.training.Member(0, ticket), tb.training.Member(1, ticket)])
    assert {one.alone for one in trained} == {"a ticket of whole units trains as a smaller network of its own"}
    assert trained[0].model[0].out_channels == 2
    assert trained[0].metric == tb.train(task, ticket).metric


def test_the_report_says_with_how_many_a_run_trained():
    result = run("imp", "", 0.2, 0)
    rows = [(1, ""), (3, ""), (1, "its recipe compiles it")]
    said = [_company(replace(result, together=together, alone=alone)) for together, alone in rows]
    assert said == ["alone", "with 2 others", "alone: its recipe compiles it"]
