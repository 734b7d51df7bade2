"""The loop, its recipes and its ledger."""

from __future__ import annotations

import gc
import math
import mmap
import os
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)
from torch.utils.data.distributed import DistributedSampler

import tombola as tb
from tombola.evidence import Against
from tombola.evidence.other_data import AlteredData, HalfData, RandomLabels
from tombola.testing import toy_network, toy_task
from tombola.tickets import put_values, tensors_of
from tombola.training import (
    Cost,
    Member,
    Observer,
    Run,
    Snapshot,
    Step,
    evaluate,
    peak_memory,
    reset_peak_memory,
    step_memory,
    train_samples,
    train_together,
)
from tombola.training.batches import MemoryBatches, crop, flip
from tombola.training.loop import fit


def _rates(recipe: tb.Recipe, steps_per_epoch: int) -> list[float]:
    return [recipe.lr_at(step, steps_per_epoch) for step in range(recipe.epochs * steps_per_epoch)]


def _torch_rates(make, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_and_multistep_are_torchs():
    schedulers = torch.optim.lr_scheduler
    cosine = _torch_rates(lambda o: schedulers.CosineAnnealingLR(o, 30), 30)
    assert _rates(tb.Recipe(epochs=6, lr=0.4), 5) == pytest.approx(cosine)
    multistep = _torch_rates(lambda o: schedulers.MultiStepLR(o, [15, 22], 0.1), 30)
    assert _rates(tb.Recipe(epochs=6, lr=0.4, schedule="multistep", milestones=(0.5, 22 / 30)), 5) == pytest.approx(
        multistep
    )


def test_one_cycle_is_torchs_but_for_its_floor():
    make = torch.optim.lr_scheduler.OneCycleLR
    reference = _torch_rates(lambda o: make(o, 0.4, total_steps=1000, cycle_momentum=False), 1000)
    assert _rates(tb.Recipe(epochs=10, lr=0.4, schedule="one-cycle"), 100) == pytest.approx(reference, abs=0.002)


@pytest.mark.parametrize("schedule", ["cosine", "cosine-by-epoch", "one-cycle", "constant"])
@pytest.mark.parametrize("warmup", [1, 2.5, 9])
def test_a_schedule_rises_while_it_warms_up_and_then_only_falls(schedule, warmup):
    rates = _rates(tb.Recipe(epochs=10, lr=1.0, schedule=schedule, warmup=warmup), 40)
    end = round(warmup * 40)
    assert all(one < next_ for one, next_ in pairwise(rates[:end]))
    assert rates[end] == pytest.approx(1.0)
    assert all(one >= next_ for one, next_ in pairwise(rates[end:]))


def test_warm_up_rises_in_equal_steps_to_the_rate():
    rates = _rates(tb.Recipe(epochs=4, lr=1.0, schedule="constant", warmup=1), 4)
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8] + 12 * [1.0])


def test_training_from_a_step_goes_on_exactly_where_a_snapshot_was_taken():
    recipe = tb.Recipe(epochs=3, batch=20, lr=0.05, momentum=0.0, augment=("crop",), precision="float32")
    task = replace(toy_task(), recipe=recipe)
    snapshot = Snapshot(Step.parse("8it"))
    whole = task.build(0)
    fit(task, whole, recipe, seed=0, observers=[snapshot])
    task = replace(task, model=lambda: _without_dropout(toy_network()))
    whole, snapshot = task.build(0), Snapshot(Step.parse("8it"))
    fit(task, whole, recipe, seed=0, observers=[snapshot])
    rest = task.build(1)
    put_values(rest, snapshot.taken)
    done = fit(task, rest, replace(recipe, start="8it"), seed=0)
    assert all(torch.equal(value, tensors_of(whole)[name]) for name, value in tensors_of(rest).items())
    assert done.cost.samples_backward == (3 * 6 - 8) * 20 - 2 * 12
    assert snapshot.epochs_spent == pytest.approx(8 / 6)


def _without_dropout(model: nn.Sequential) -> nn.Module:
    return nn.Sequential(*(module for module in model if not isinstance(module, nn.Dropout)))


def test_bf16_trains_close_to_float32_and_keeps_float32_weights():
    task = toy_task(epochs=6)
    trained = {p: tb.train(replace(task, recipe=replace(task.recipe, precision=p))) for p in ("float32", "bf16")}
    assert all(p.dtype == torch.float32 for p in trained["bf16"].model.parameters())
    assert trained["bf16"].history[0]["train_loss"] == pytest.approx(
        trained["float32"].history[0]["train_loss"], rel=0.05
    )
    assert trained["bf16"].history[0]["train_loss"] != trained["float32"].history[0]["train_loss"]


def test_label_smoothing_is_cross_entropys():
    task = toy_task(epochs=1)
    smooth = replace(task, recipe=replace(task.recipe, label_smoothing=0.2))
    by_hand = replace(task, loss=lambda outputs, targets: F.cross_entropy(outputs, targets, label_smoothing=0.2))
    assert tb.train(smooth).history[0]["train_loss"] == tb.train(by_hand).history[0]["train_loss"]


def test_crop_shifts_by_at_most_the_padding_and_flip_mirrors():
    images = torch.arange(1, 65, dtype=torch.float32).reshape(1, 1, 8, 8).expand(200, 2, 8, 8)
    padded = F.pad(images[0], (4, 4, 4, 4))
    windows = {padded[:, top : top + 8, left : left + 8].numpy().tobytes() for top in range(9) for left in range(9)}
    shifted = {image.numpy().tobytes() for image in crop(images, torch.Generator().manual_seed(0))}
    assert shifted <= windows
    assert len(shifted) > 50
    flipped = flip(images, torch.Generator().manual_seed(0))
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert 60 < int(mirrored.sum()) < 140
    assert bool((mirrored | (flipped == images).flatten(1).all(1)).all())


def test_memory_batches_give_each_sample_once_but_for_a_last_single_one():
    inputs, targets = torch.arange(41.0).reshape(41, 1), torch.arange(41)
    for size, batches in ((20, 2), (40, 1), (10, 4), (7, 6)):
        shuffled = MemoryBatches(inputs, targets, size, seed=1)
        seen = torch.cat([y for _, y in shuffled])
        assert len(shuffled) == len(list(shuffled)) == batches
        assert len(seen.unique()) == len(seen) == (41 if size == 7 else 40)
        assert len(torch.cat([y for _, y in MemoryBatches(inputs, targets, size)])) == 41


def test_the_ledger_counts_samples_epochs_and_flops_of_an_mlp_by_hand():
    x, y = torch.randn(110, 6), torch.randint(0, 3, (110,))
    model = lambda: nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))  # noqa: E731
    data = {"train": (x[:100], y[:100]), "test": (x[100:], y[100:])}
    task = tb.SupervisedTask(model, data, recipe=tb.Recipe(epochs=3, batch=30), validation=0.2)
    cost = tb.train(task).cost
    forward, backward = 2 * (6 * 20 + 20 * 3), 2 * (6 * 20 + 2 * 20 * 3)
    assert (cost.samples_forward, cost.samples_backward, cost.dense_epochs) == (3 * 100, 3 * 80, 3.0)
    assert cost.flops == 3 * (80 * (forward + backward) + 20 * forward)
    assert Cost(1, 2, 3, 4.0, 5, 6.0) + Cost(1, 1, 1, 1.0, 9, 1.0) == Cost(2, 3, 4, 5.0, 9, 7.0)


class _Stream(IterableDataset):
    """Numbers and targets one after another; how many there are it says in batches only."""

    def __iter__(self):
        return iter(NUMBERS)

    def __len__(self):
        return len(NUMBERS)


class _Doubled:
    """Batches of another kind than any loader's."""

    def __iter__(self):
        return iter(2 * [next(iter(DataLoader(NUMBERS, 8)))])

    def __len__(self):
        return 2


NUMBERS = TensorDataset(torch.randn(50, 6), torch.arange(50) % 3)
LOADERS = {
    "whole": (lambda: DataLoader(NUMBERS, 8), 50),
    "drop last": (lambda: DataLoader(NUMBERS, 8, shuffle=True, drop_last=True), 48),
    "a part": (lambda: DataLoader(NUMBERS, 8, sampler=SubsetRandomSampler(range(10))), 10),
    "weighted": (lambda: DataLoader(NUMBERS, 8, sampler=WeightedRandomSampler(torch.ones(50), 20)), 20),
    "four times": (lambda: DataLoader(NUMBERS, 8, sampler=RandomSampler(NUMBERS, True, 200)), 200),
    "a replica": (lambda: DataLoader(NUMBERS, 8, sampler=DistributedSampler(NUMBERS, 4, 0)), 13),
    "own batches": (lambda: DataLoader(NUMBERS, batch_sampler=[[0, 1, 2], [3, 4]]), 5),
    "no batching": (lambda: DataLoader(NUMBERS, None, sampler=BatchSampler(range(50), 20, False)), 50),
    "a stream": (lambda: DataLoader(_Stream(), 8), 50),
    "doubled by collating": (lambda: DataLoader(NUMBERS, 8, collate_fn=lambda own: default_collate(own + own)), 100),
    "collated as it is": (lambda: DataLoader(NUMBERS, 8, collate_fn=lambda own: default_collate(own)), 50),
    "no loader": (_Doubled, 16),
    "a list": (lambda: list(DataLoader(NUMBERS, 20)), 50),
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("other", [lambda task: task, HalfData, lambda task: AlteredData(task, RandomLabels(3), 0)])
def test_a_dense_epoch_is_what_a_pass_gives_whatever_the_loader(name, other):
    if other is HalfData and name in ("drop last", "a part", "weighted", "four times", "a replica"):
        pytest.skip("batches in another order each epoch are not halved")
    make, samples = LOADERS[name]
    whole_batch = list(DataLoader(NUMBERS, 50))
    data = {"train": make(), "validation": whole_batch, "test": whole_batch}
    whole = tb.SupervisedTask(lambda: nn.Linear(6, 3), data, recipe=tb.Recipe(epochs=2, batch=8, precision="float32"))
    task = other(whole)
    random = torch.get_rng_state()
    given = train_samples(task.batches("train", 0, 0))
    assert torch.equal(random, torch.get_rng_state())
    seen = sum(len(targets) for _, targets in task.batches("train", 0, 0))
    assert given == seen
    if task is whole:
        assert given == samples
    cost = tb.train(task).cost
    assert cost.samples_backward == 2 * seen
    assert cost.dense_epochs == 2.0


def test_counting_reads_a_loader_once_and_leaves_its_own_generator_alone():
    passes = []

    class Counting(_Stream):
        def __iter__(self):
            passes.append(1)
            return super().__iter__()

    loader = DataLoader(Counting(), 8)
    assert [train_samples(loader) for _ in range(3)] == [50, 50, 50]
    assert len(passes) == 1
    own = torch.Generator().manual_seed(3)
    drawn = DataLoader(NUMBERS, 8, shuffle=True, generator=own, collate_fn=lambda items: default_collate(items))
    before = own.get_state()
    assert train_samples(drawn) == 50
    assert torch.equal(before, own.get_state())


def test_batches_of_memory_that_are_left_out_are_no_part_of_a_dense_epoch():
    task = toy_task(epochs=3)
    task = replace(task, recipe=replace(task.recipe, batch=50, drop_last=True))
    seen = sum(len(targets) for _, targets in task.batches("train", 0, 0))
    assert seen < task.batches("train", 0, 0).count
    alone, together = tb.train(task).cost, train_together(task, [Member(0), Member(1)])[0].cost
    assert alone.samples_backward == together.samples_backward == 3 * seen
    assert alone.dense_epochs == together.dense_epochs == 3.0


def test_a_loader_without_a_length_is_refused_in_a_sentence():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(NUMBERS)

    data = {"train": DataLoader(Endless(), 8), "validation": [NUMBERS[:8]], "test": [NUMBERS[:8]]}
    with pytest.raises(tb.TombolaError, match="training batches have no length"):
        tb.train(tb.SupervisedTask(lambda: nn.Linear(6, 3), data))


@pytest.mark.parametrize(("optimizer", "momentum", "state"), [("sgd", 0.9, 1), ("sgd", 0.0, 0), ("adam", 0.9, 2)])
def test_the_memory_of_a_step_is_counted_by_hand(optimizer, momentum, state):
    batch = torch.randn(30, 6), torch.randint(0, 3, (30,))
    model = lambda: nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))  # noqa: E731
    recipe = tb.Recipe(epochs=1, batch=30, optimizer=optimizer, momentum=momentum)
    task = tb.SupervisedTask(model, dict.fromkeys(("train", "validation", "test"), batch), recipe=recipe)
    weights, rest = (6 * 20 + 20) * 4, (20 * 3 + 3) * 4
    inputs, hidden, outputs, targets, total = 30 * 6 * 4, 30 * 20 * 4, 30 * 3 * 4, 30 * 8, 4
    kept = inputs + hidden + outputs + targets + total
    assert step_memory(task, task.build(0), batch, recipe) == (2 + state) * (weights + rest) + kept
    assert tb.train(task).cost.step_memory == (2 + state) * (weights + rest) + kept
    held = task.build(0)
    held[0].requires_grad_(False)
    assert step_memory(task, held, batch, recipe) == weights + (2 + state) * rest + kept - inputs


def test_the_memory_of_a_step_counts_real_values_where_it_must():
    task = toy_task()
    batch = next(iter(task.batches("train", 0, 0)))
    seeing = replace(task, loss=lambda outputs, targets: task.loss(outputs, targets) + 0 * float(outputs.sum()))
    model = task.build(0)
    assert step_memory(seeing, model, batch, task.recipe) == step_memory(task, model, batch, task.recipe)


def test_a_smaller_network_needs_less_memory_for_a_step():
    task = toy_task(epochs=1)
    ticket = tb.find(task, tb.OneShot(density=0.5, score=tb.scores.snip, granularity=tb.Channels(), floor=1))
    small, masked, dense = (tb.train(task, own, small=cut).cost for own, cut in ((ticket, 1), (ticket, 0), (None, 1)))
    assert small.step_memory < masked.step_memory == dense.step_memory


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux forgets the highest size")
def test_peak_memory_is_that_of_the_stage_and_not_of_what_was_before():
    task, size, cpu = toy_task(epochs=1), 200_000_000, torch.device("cpu")
    gc.collect()  # What other tests left would go in the middle of this one.
    reset_peak_memory(cpu)
    before = peak_memory(cpu)
    # Pages of its own: a tensor's could be those that earlier tests freed and the process still holds.
    big = torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8).fill_(1)
    assert peak_memory(cpu) > before + 0.9 * size
    assert tb.train(task).cost.peak_memory > before + 0.9 * size
    del big
    assert peak_memory(cpu) > before + 0.9 * size
    assert tb.train(task).cost.peak_memory < before + 0.5 * size


class Diary(Observer):
    def __init__(self, stop_after=math.inf):
        self.notes, self.stop_after = [], stop_after

    def epoch_begin(self, state):
        self.notes.append(("begin", state.epoch, state.step))

    def before_step(self, state):
        self.notes.append(("before", state.step))

    def after_step(self, state):
        self.notes.append(("after", state.step))

    def epoch_end(self, state):
        self.notes.append(("end", state.epoch, len(state.history)))
        return state.epoch >= self.stop_after


def test_observers_are_called_in_order_and_may_stop_training():
    task, diary = toy_task(epochs=9), Diary(stop_after=2)
    done = fit(task, task.build(0), task.recipe, seed=0, observers=[diary])
    epoch = [note for step in range(6) for note in (("before", step), ("after", step + 1))]
    assert diary.notes[:14] == [("begin", 0, 0), *epoch, ("end", 1, 1)]
    assert len(done.history) == 2


class Merging(nn.Linear):
    """Linear, and like an adapter does something when its mode changes."""

    merged = False

    def train(self, mode: bool = True):
        self.merged = not mode
        return super().train(mode)


def _frozen():
    """A network in training of which one norm stays in evaluation mode; its parts' modes."""
    model = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU(), Merging(8, 3))
    model[1].eval()
    return model, lambda: [part.training for part in model.modules()]


def test_what_is_frozen_stays_frozen_when_a_network_is_evaluated():
    model, modes = _frozen()
    batches = [(torch.randn(8, 20), torch.randint(3, (8,)))]
    task = tb.SupervisedTask(lambda: model, {"train": batches, "validation": batches, "test": batches})
    before = modes()
    evaluate(task, model, "test", task.recipe)
    tb.scores.snip(model, batches, F.cross_entropy)
    tb.robust.pgd(model, torch.rand(4, 20), torch.tensor([0, 1, 2, 0]), F.cross_entropy, 0.1, (0.0, 1.0), steps=1)
    assert modes() == before
    assert not model[3].merged

    def failing(outputs, targets):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        evaluate(replace(task, metric=failing), model, "test", task.recipe)
    assert modes() == before


def test_evaluation_restores_the_mode_and_touches_nothing():
    task = toy_task()
    model = task.build(0).train()
    before = {name: value.clone() for name, value in tensors_of(model).items()}
    metric, loss, count = evaluate(task, model, "test", task.recipe)
    assert model.training
    assert count == 60
    assert 0 <= metric <= 1
    assert loss > 0
    assert all(torch.equal(value, before[name]) for name, value in tensors_of(model).items())


class Plain:
    """A user's own task: no base class, inputs in a dict, and a record of the splits that were asked for."""

    recipe = tb.Recipe(epochs=2, batch=30)

    def __init__(self):
        self.asked = []

    def build(self, seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2))

    def batches(self, split, seed, epoch):
        self.asked.append(split)
        x = torch.randn(60, 5, generator=torch.Generator().manual_seed(7))
        y = (x[:, 0] > 0).long()
        return [({"x": x[:30]}, y[:30]), ({"x": x[30:]}, y[30:])]

    def forward(self, model, inputs):
        return model(inputs["x"])

    def loss(self, outputs, targets):
        return F.cross_entropy(outputs, targets)

    def metric(self, outputs, targets):
        return (outputs.argmax(1) == targets).float().mean()


@pytest.mark.parametrize("name", ["imp", "snip", "grasp", "random"])
def test_a_users_own_task_works_and_the_test_split_is_read_once_at_the_end(name):
    task = Plain()
    ticket = tb.find(task, tb.method(name, density=0.5))
    assert "test" not in task.asked
    task.asked.clear()
    tb.train(task, ticket)
    assert task.asked.count("test") == 1
    assert task.asked[-1] == "test"


def test_synflow_feeds_ones_to_dictionaries_too():
    assert tb.find(Plain(), tb.method("synflow", density=0.5)).mask.total_kept == 56


@pytest.mark.parametrize("loop", ["init", "5it", "learning-rate"])
def test_rounds_around_ones_own_training_prune_and_rewind_bit_for_bit(loop):
    task = toy_task()
    model = task.build(0)
    first, at_five, trained, seen = tensors_copied(model), {}, {}, []
    for round in tb.Iterative(density=0.2, count=3, rewind=loop).rounds(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        expected = first if round.index == 0 else {"init": first, "5it": at_five, "learning-rate": trained}[loop]
        assert all(torch.equal(value, expected[name]) for name, value in tensors_of(model).items())
        assert round.mask.total_kept == round_half_even(round.density * 732)
        with round.attach(optimizer):
            for step, (inputs, targets) in enumerate(task.batches("train", 0, 0), start=1):
                optimizer.zero_grad()
                task.loss(model(inputs), targets).backward()
                optimizer.step()
                if round.index == 0 and step == 5:
                    at_five = tensors_copied(model)
        for name, weight in tb.structure.prunable(model).items():
            assert not weight[~round.mask[name]].any()
        trained = tensors_copied(model)
        seen.append(round.mask)
    assert len(seen) == 4
    assert all(later <= earlier for earlier, later in pairwise(seen))
    assert round.ticket.density == pytest.approx(0.2, abs=1e-3)
    model = task.build(1)
    round.ticket.put_into(model)


def tensors_copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in tensors_of(model).items()}


def round_half_even(value: float) -> int:
    return round(value)


@pytest.mark.parametrize(("rewind", "words"), [("1ep", "needs to know the training"), ("99it", "train longer")])
def test_rounds_that_cannot_rewind_say_why(rewind, words):
    model = toy_network()
    with pytest.raises(tb.TombolaError, match=words):
        for round in tb.Iterative(density=0.5, rewind=rewind).rounds(model):
            round.attach(torch.optim.SGD(model.parameters(), lr=0.1)).detach()


def test_the_seed_is_the_runs_and_another_beside_it_is_refused():
    task, method = toy_task(), tb.method("random", density=0.5)
    by_run, by_seed = tb.find(task, method, run=Run(7)), tb.find(task, method, seed=7)
    assert by_run.digest == by_seed.digest == tb.find(task, method, seed=7, run=Run(7)).digest
    assert by_run.provenance.seed == by_seed.provenance.seed == 7
    assert by_run.digest != tb.find(task, method).digest == tb.find(task, method, seed=0).digest
    dense = [tb.train(task, **own).history[-1]["train_loss"] for own in ({"seed": 7}, {"run": Run(7)})]
    assert dense[0] == dense[1]
    for act in (
        lambda: tb.find(task, method, seed=7, run=Run()),
        lambda: tb.train(task, seed=7, run=Run()),
        lambda: Against(task, by_run, 7, run=Run()),
    ):
        with pytest.raises(tb.TombolaError, match=r"seed is 7, but the run has the seed 0; .* give Run\(7\)"):
            act()


@pytest.mark.slow
def test_a_compiled_network_trains_like_the_plain_one():
    task = toy_task(lambda: _without_dropout(toy_network()))  # inductor draws dropout from another stream
    compiled = replace(task, recipe=replace(task.recipe, compile=True))
    ticket = tb.find(compiled, tb.method("imp", density=0.5))
    assert tb.train(compiled, ticket).history[-1]["train_loss"] == pytest.approx(
        tb.train(task, ticket).history[-1]["train_loss"], rel=1e-3
    )


def test_rounds_whose_dead_weights_move_are_told():
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    rounds = tb.Iterative(density=0.5, count=1).rounds(model)
    for _ in range(2):
        next(rounds)
        model(torch.ones(2, 8)).square().sum().backward()
        optimizer.step()
    with pytest.warns(tb.methods.SearchWarning, match="dead weights of 'weight' moved in round 1"):
        next(rounds, None)


def test_a_training_has_gradients_where_the_caller_has_none():
    task = toy_task(epochs=1)
    with torch.no_grad():
        result = tb.train(task)
    assert result.loss == tb.train(task).loss
