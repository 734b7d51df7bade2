"""DataLoaders whose batches are the same for the same seed, whatever ran before and however many workers there are.

Each batch is drawn and read from a random state of its own, which a seed and the batch's number decide: torch's,
NumPy's and Python's global one, and those of the generators that data set and collate function hold. Samplers are used
as copies, so that the user's loader stays as it was.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    Sampler,
    Subset,
    TensorDataset,
    default_collate,
    get_worker_info,
)

from tombola.scores import is_dataset
from tombola.training.random_generators import GENERATORS, generators_in, seed_draws, seed_generator
from tombola.training.randomness import mixed

INNER = ("sampler", "batch_sampler")
"""Attributes of a sampler that are samplers too, of whatever class."""
OWNED = (*GENERATORS, Sampler, Tensor, np.ndarray, dict, list)
"""What a sampler may hold and change while it is used."""
SEEDS = ("seed", "initial_seed")
"""Attributes of a sampler whose order depends on them and on the epoch that it is told."""


def own_sampler(sampler: Any, seed: int, epoch: int) -> Any:
    """Copy a sampler, so that its order is a function of (seed, epoch) and its use leaves the sampler as it was.

    Args:
        sampler: draws samples, or batches of them.
        seed: of its generators, and of a sampler that orders by a seed and the epoch it is told.
        epoch: counted from 0.

    Returns:
        A copy with own generators and lists, told the epoch if it asks for it. The data that it knows are not copied.
    """
    if isinstance(sampler, GENERATORS):
        own = copy.copy(sampler) if isinstance(sampler, random.Random) else _new(sampler)
        begun = sampler.initial_seed() if isinstance(sampler, torch.Generator) else 0
        seed_generator(own, mixed(seed, epoch, begun))
        return own
    if isinstance(sampler, Tensor | np.ndarray):
        return copy.deepcopy(sampler) if sampler.ndim == 1 else sampler
    if type(sampler) is dict:
        return {key: own_sampler(value, seed, epoch) for key, value in sampler.items()}
    if type(sampler) is list:
        nested = bool(sampler) and not isinstance(sampler[0], int | float | np.generic)
        return [own_sampler(value, seed, epoch) for value in sampler] if nested else list(sampler)
    if not hasattr(sampler, "__dict__") or is_dataset(sampler):
        return sampler
    own = copy.copy(sampler)
    for name, value in vars(sampler).items():
        if name != "data_source" and (isinstance(value, OWNED) or name in INNER):
            vars(own)[name] = own_sampler(value, seed, epoch)
    if callable(told := getattr(own, "set_epoch", None)):
        for name in SEEDS:
            if isinstance(vars(own).get(name), int):
                setattr(own, name, mixed(seed, vars(own)[name]) & 0x7FFFFFFF)
        told(epoch)
    elif isinstance(vars(own).get("epoch"), int):
        own.epoch = epoch
    return own


def _new(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return torch.Generator(generator.device)
    if isinstance(generator, np.random.RandomState):
        return np.random.RandomState(0)
    return np.random.Generator(type(generator.bit_generator)(0))


class Draw(NamedTuple):
    """The place of a sample, or the places of a batch's, and the seed and epoch with which they are read."""

    seed: int
    epoch: int
    places: Any


class SeededSampler:
    """Draws as another sampler does, but by (seed, epoch), which are set before each pass.

    Args:
        sampler: the other one; it stays as it is.
        reads_at_random: whether the samples are read at random, so that each draw carries a seed for it.
    """

    def __init__(self, sampler: Any, reads_at_random: bool) -> None:
        self._sampler, self._reads_at_random = sampler, reads_at_random
        self.seed = self.first = self.epoch = 0

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Any]:
        first = self.first
        seed_draws(first)
        places = iter(own_sampler(self._sampler, self.seed, self.epoch))
        if not self._reads_at_random:
            yield from places
            return
        number = 0
        while True:
            seed_draws(first + number)
            try:
                drawn = next(places)
            except StopIteration:
                return
            yield Draw(first + number, self.epoch, drawn)
            number += 1


class SeededDataset(Dataset):
    """Another data set whose samples are read from the random state that a `Draw` names, in whichever process.

    Args:
        dataset: the other one.
        used: what else may hold generators, as the collate function.
    """

    def __init__(self, dataset: Any, used: Any) -> None:
        self.dataset, self._used = dataset, used
        self._generators: list[Any] | None = None
        self._epoch: int | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Draw) -> Any:
        self._begin(index)
        return self.dataset[index.places]

    def __getitems__(self, draw: Draw) -> Any:
        self._begin(draw)
        together = getattr(self.dataset, "__getitems__", None)
        return together(draw.places) if together else [self.dataset[place] for place in draw.places]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_generators": None}  # another process has other ones

    def _begin(self, draw: Draw) -> None:
        if self._generators is None:
            self._generators = generators_in((self.dataset, self._used))
        if self._epoch != draw.epoch and callable(told := getattr(self.dataset, "set_epoch", None)):
            told(draw.epoch)
        self._epoch = draw.epoch
        seed_draws(draw.seed, self._generators)


class WorkerStart:
    """Starts a worker as the user's function does, which sees the data set that the user gave.

    Args:
        start: the user's function of the worker's number, if there is one.
    """

    def __init__(self, start: Any) -> None:
        self._start = start

    def __call__(self, worker: int) -> None:
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, SeededDataset):
            object.__setattr__(info, "dataset", info.dataset.dataset)  # the class forbids it to its users
        if self._start is not None:
            self._start(worker)


def is_plain(loader: Any) -> bool:
    """Whether something is a DataLoader that iterates as torch's own does."""
    return isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__


def reads_at_random(loader: DataLoader) -> bool:
    """Whether a loader's batches may depend on random numbers, besides the order that its sampler draws at first."""
    dataset = loader.dataset
    while type(dataset) is Subset:
        dataset = dataset.dataset
    samplers = [loader.sampler, loader.batch_sampler]
    known = all(sampler is None or type(sampler).__module__.startswith("torch.utils.data.") for sampler in samplers)
    return not (type(dataset) is TensorDataset and loader.collate_fn is default_collate and known)


def seeded(loader: DataLoader) -> tuple[DataLoader, SeededSampler]:
    """Make a loader like another one over a data set with an index, whose draws depend on a seed.

    Args:
        loader: of torch's own way to iterate; it stays as it is.

    Returns:
        The new loader, and its sampler, which is told seed and epoch before each pass.
    """
    at_random = reads_at_random(loader)
    batched = loader.batch_sampler is not None
    sampler = SeededSampler(loader.batch_sampler if batched else loader.sampler, at_random)
    dataset = SeededDataset(loader.dataset, loader.collate_fn) if at_random else loader.dataset
    places: dict[str, Any] = {"batch_sampler": sampler} if batched else {"batch_size": None, "sampler": sampler}
    start = WorkerStart(loader.worker_init_fn) if at_random and loader.num_workers else loader.worker_init_fn
    places |= {"worker_init_fn": start, "persistent_workers": loader.persistent_workers, "generator": torch.Generator()}
    return _like(loader, dataset, **places), sampler


def seeded_stream(loader: DataLoader, seed: int) -> DataLoader:
    """Make a loader like another one over a stream of samples, whose workers draw by a seed."""
    return _like(
        loader,
        loader.dataset,
        batch_size=loader.batch_size,
        drop_last=loader.drop_last,
        worker_init_fn=loader.worker_init_fn,
        generator=torch.Generator().manual_seed(seed),
    )


def _like(loader: DataLoader, dataset: Any, **settings: Any) -> DataLoader:
    return DataLoader(
        dataset,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        **settings,
    )
