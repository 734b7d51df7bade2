"""The same (seed, epoch) gives the same batches, whatever ran before, and the user's loader stays as it was."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)

import tombola as tb
from tombola.training import DataWarning
from tombola.training.random_generators import generators_in

SAMPLES = 24
X = torch.randn(SAMPLES, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(SAMPLES) % 3
OUTSIDE = np.random.default_rng(3)
TENSORS = TensorDataset(X, Y)


class Noisy(Dataset):
    def __init__(self, noise):
        self.noise = noise

    def __len__(self):
        return SAMPLES

    def __getitem__(self, place):
        return X[place] + self.noise(), Y[place]


class Holding(Noisy):
    """Draws from generators of its own, one of them deep inside."""

    def __init__(self):
        self.first, self.others = torch.Generator(), [{"deep": np.random.default_rng(1)}, random.Random(2)]

    def noise(self):
        deep, plain = self.others
        return torch.rand(1, generator=self.first) + float(deep["deep"].random()) + plain.random()


class Counting(Noisy):
    """Draws from nothing that can be seeded: its noise is how often it was read."""

    def __init__(self):
        self.reads = 0

    def noise(self):
        self.reads += 1
        return self.reads


class Stream(IterableDataset):
    def __iter__(self):
        worker = get_worker_info()
        order = np.random.permutation(SAMPLES)
        for place in order[worker.id :: worker.num_workers] if worker else order:
            yield X[place] + torch.randn(1), Y[place]


class InPlace(Sampler):
    """Shuffles what it holds, so that an order depends on the one before."""

    def __init__(self):
        self.order = list(range(SAMPLES))

    def __len__(self):
        return SAMPLES

    def __iter__(self):
        random.shuffle(self.order)
        return iter(self.order)


class OneByOne(InPlace):
    """Draws each sample when it is asked for it."""

    def __iter__(self):
        return (random.randrange(SAMPLES) for _ in range(SAMPLES))


class Told(InPlace):
    """Orders by its seed and the epoch that it is told."""

    def __init__(self):
        self.seed = self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(torch.randperm(SAMPLES, generator=generator).tolist())


def dropping(samples):
    inputs, targets = default_collate(samples)
    return inputs * (torch.rand(inputs.shape) > 0.5), targets


def noise_of_torch():
    return torch.randn(1)


def noise_of_numpy():
    return float(np.random.randn())


def noise_of_python():
    return random.random()


def noise_from_outside():
    return float(OUTSIDE.random())


LOADERS = {
    "shuffled": lambda **how: DataLoader(TENSORS, 8, shuffle=True, **how),
    "a generator": lambda **how: DataLoader(TENSORS, 8, shuffle=True, generator=torch.Generator(), **how),
    "noise of torch": lambda **how: DataLoader(Noisy(noise_of_torch), 8, shuffle=True, **how),
    "noise of numpy": lambda **how: DataLoader(Noisy(noise_of_numpy), 8, shuffle=True, **how),
    "noise of python": lambda **how: DataLoader(Noisy(noise_of_python), 8, shuffle=True, **how),
    "a generator outside": lambda **how: DataLoader(Noisy(noise_from_outside), 8, shuffle=True, **how),
    "generators inside": lambda **how: DataLoader(Holding(), 8, shuffle=True, **how),
    "noise of the collate function": lambda **how: DataLoader(TENSORS, 8, shuffle=True, collate_fn=dropping, **how),
    "in place": lambda **how: DataLoader(TENSORS, 8, sampler=InPlace(), **how),
    "one by one": lambda **how: DataLoader(Noisy(noise_of_torch), 8, sampler=OneByOne(), **how),
    "told the epoch": lambda **how: DataLoader(TENSORS, 8, sampler=Told(), **how),
    "distributed": lambda **how: DataLoader(TENSORS, 4, sampler=DistributedSampler(TENSORS, 2, 0), **how),
    "weighted": lambda **how: DataLoader(TENSORS, 8, sampler=WeightedRandomSampler(torch.ones(24), 24), **how),
    "batches": lambda **how: DataLoader(
        TENSORS, batch_sampler=BatchSampler(RandomSampler(TENSORS, generator=torch.Generator()), 8, True), **how
    ),
    "a stream": lambda **how: DataLoader(Stream(), 8, **how),
}


def task_of(train) -> tb.SupervisedTask:
    data = {"train": train, "validation": (X, Y), "test": (X, Y)}
    steps = 3 if isinstance(train.dataset, IterableDataset) else None
    return tb.SupervisedTask(lambda: nn.Linear(4, 3), data, recipe=tb.Recipe(epochs=1), steps_per_epoch=steps)


def read(task, seed, epoch):
    return torch.cat([inputs for inputs, _ in task.batches("train", seed, epoch)])


def states():
    generators = [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]
    return [*generators, OUTSIDE.bit_generator.state]


def state_of(loader):
    held = [part for part in (loader.sampler, loader.batch_sampler, loader.dataset) if part is not None]
    plain = [{name: value for name, value in vars(part).items() if isinstance(value, int | list)} for part in held]
    drawn = [g.get_state().tolist() for g in generators_in((loader.generator, *held)) if isinstance(g, torch.Generator)]
    return [vars(loader)["_iterator"], repr(plain), drawn]


@pytest.mark.parametrize("name", LOADERS)
def test_batches_are_a_function_of_seed_and_epoch_and_leave_no_trace(name):
    loader = LOADERS[name]()
    task, before = task_of(loader), (states(), state_of(loader))
    first, other_epoch, other_seed = read(task, 0, 0), read(task, 0, 1), read(task, 1, 0)
    assert before == (states(), state_of(loader))
    for draw in (torch.rand, np.random.rand, lambda _: random.random(), OUTSIDE.random):
        draw(1)
    if name != "in place":  # the user's own pass changes what it shuffles
        next(iter(loader))
    assert torch.equal(first, read(task, 0, 0))
    assert torch.equal(first, read(task_of(LOADERS[name]()), 0, 0))
    assert not torch.equal(first, other_epoch)
    assert not torch.equal(first, other_seed)
    halves = iter(task.batches("train", 0, 0))
    begun = [next(halves)]
    assert torch.equal(other_epoch, read(task, 0, 1))  # within the other pass, and drawing in between
    torch.rand(5)
    assert torch.equal(first, torch.cat([inputs for inputs, _ in [*begun, *halves]]))


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("lasting", [False, True])
def test_workers_give_the_batches_that_one_process_gives(name, lasting):
    alone, task = task_of(LOADERS[name]()), task_of(LOADERS[name](num_workers=2, persistent_workers=lasting))
    first, second = read(task, 0, 0), read(task, 0, 1)
    assert name == "a stream" or (torch.equal(first, read(alone, 0, 0)) and torch.equal(second, read(alone, 0, 1)))
    begun = iter(task.batches("train", 0, 0))
    next(begun)
    assert torch.equal(second, read(task, 0, 1))
    del begun
    assert torch.equal(first, read(task, 0, 0))


class Process(Dataset):
    """Samples that say in which process they were read."""

    def __len__(self):
        return 4

    def __getitem__(self, place):
        worker = get_worker_info()
        assert type(worker.dataset) is Process  # and not what seeds it
        return torch.tensor([float(torch.initial_seed() % 2), float(id(worker) % 2**31), torch.rand(1)]), 0


def started(worker):
    get_worker_info().dataset.started = True


def test_workers_that_persist_are_not_started_again():
    import multiprocessing

    loader = DataLoader(Process(), 2, num_workers=1, persistent_workers=True, worker_init_fn=started)
    task, workers = task_of(loader), []
    first = [read(task, 0, 0), workers.append(multiprocessing.active_children())]
    again = [read(task, 0, 0), workers.append(multiprocessing.active_children())]
    assert torch.equal(first[0][:, 2], again[0][:, 2])
    assert workers[0] == workers[1] != []
    assert loader._iterator is None


def test_what_cannot_be_seeded_is_told_once():
    task = task_of(DataLoader(Counting(), 8))
    read(task, 0, 0)
    with pytest.warns(DataWarning, match="another one than before with the same seed and epoch"):
        read(task, 0, 0)
    read(task, 0, 0)  # a warning would be an error here


def test_a_loader_of_its_own_kind_is_seeded_from_outside():
    class Prefetching(DataLoader):
        def __iter__(self):
            yield from list(super().__iter__())

    task = task_of(Prefetching(Noisy(noise_of_numpy), 8, sampler=Told()))
    assert torch.equal(read(task, 0, 0), read(task, 0, 0))
    assert not torch.equal(read(task, 0, 0), read(task, 0, 1))
    assert task.data["train"].sampler.epoch == 0


def test_arms_of_a_check_see_the_same_data_in_whatever_order_they_run():
    def forward(model, inputs):
        if model.training and inputs.device.type == "cpu":
            seen.append(float(inputs.sum()))
        return model(inputs)

    data = {"train": LOADERS["noise of torch"](), "validation": (X, Y), "test": (X, Y)}
    task = tb.SupervisedTask(lambda: nn.Linear(4, 3), data, recipe=tb.Recipe(epochs=2), forward=forward)
    orders = []
    for seed in (0, 1, 0):
        seen: list[float] = []
        tb.train(task, seed=seed)
        orders.append(seen[-2 * len(data["train"]) :])  # without the look at a first batch, which is taken once
    assert orders[0] == orders[2] != orders[1]
