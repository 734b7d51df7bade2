"""Tasks for the searches of controls: the same task with other training data, or with trained weights to start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores import Batch
from tombola.tickets import put_values
from tombola.training import (
    MemoryBatches,
    Run,
    Split,
    Task,
    TaskWrapper,
    first_of,
    length_of,
    mixed,
    own_randomness,
    pairs_of,
    pick,
)
from tombola.training import train_samples as samples_of

Alter = Callable[[Batch, torch.Generator], Batch]
AT_ONCE = 1000
"""Images that are permuted together; more would take much memory for their orders."""


@dataclass(frozen=True)
class RandomLabels:
    """Replaces each target by a class number drawn uniformly.

    Args:
        classes: how many classes there are.

    Examples:
        >>> inputs, targets = torch.zeros(3, 2), torch.tensor([0, 1, 2])
        >>> _, drawn = RandomLabels(classes=10)((inputs, targets), torch.Generator().manual_seed(0))
        >>> drawn.tolist()
        [4, 9, 3]
    """

    classes: int

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        inputs, targets = batch
        return inputs, torch.randint(self.classes, targets.shape, generator=generator).to(targets)


@dataclass(frozen=True)
class RandomImages(RandomLabels):
    """Also puts the values of each image, over all channels, into an order of the image's own."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        inputs, targets = super().__call__(batch, generator)
        if not (isinstance(inputs, Tensor) and inputs.ndim > 1):
            raise TombolaError(
                "only inputs that are one tensor have pixels to permute; use the control 'corrupted-labels'"
            )
        return torch.cat([_permuted(part, generator) for part in inputs.split(AT_ONCE)]), targets


@dataclass(frozen=True)
class AlteredData(TaskWrapper):
    """A task with altered training data; the other splits stay.

    Data in memory is altered once, before any augmentation, so that a sample is the same in every epoch. Data that
    comes in batches is altered batch by batch.

    Args:
        task: the task.
        alter: alters a batch, with the generator that it is given.
        seed: seeds this generator.
    """

    alter: Alter
    seed: int

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]:
        batches = self.task.batches(split, seed, epoch)
        if split != "train":
            return batches
        if isinstance(batches, MemoryBatches):
            inputs, targets = self._altered_in_memory
            return replace(batches, inputs=inputs, targets=targets)
        return _Each(batches, self.alter, self.seed)

    @cached_property
    def _altered_in_memory(self) -> Batch:
        batches = self.task.batches("train", 0, 0)
        assert isinstance(batches, MemoryBatches)
        return self.alter((batches.inputs, batches.targets), torch.Generator().manual_seed(self.seed))


@dataclass(frozen=True)
class HalfData(TaskWrapper):
    """A task with the first half of its training data: of the samples in memory, else of the batches.

    Args:
        task: the task.

    Raises:
        TombolaError: if the data is too little, or comes in other batches in each epoch.
    """

    def __post_init__(self) -> None:
        batches = self.task.batches("train", 0, 0)
        if isinstance(batches, MemoryBatches):
            enough = batches.count > 3
        else:
            enough = length_of(batches) > 1
            # The first half of shuffled batches would be other samples in each epoch: in time, all of them.
            if not _equal(*(_first_batch(self.task, epoch) for epoch in (0, 1))):
                raise TombolaError(
                    "the training batches differ from epoch to epoch, so that no half of the data can be cut off; give "
                    "data in memory, or batches in a fixed order"
                )
        if not enough:
            raise TombolaError("the training data is too little to be halved; give at least two batches")

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]:
        batches = self.task.batches(split, seed, epoch)
        if split != "train":
            return batches
        if isinstance(batches, MemoryBatches):
            half = slice(batches.count // 2)
            return replace(batches, inputs=pick(batches.inputs, half), targets=pick(batches.targets, half))
        return _FirstHalf(batches)


@dataclass(frozen=True)
class FromWeights(TaskWrapper):
    """A task whose networks all start from the same values.

    Args:
        task: the task.
        values: parameters and buffers by name.
    """

    values: Mapping[str, Tensor]

    def build(self, seed: int) -> nn.Module:
        model = self.task.build(seed)
        put_values(model, self.values)
        return model


def classes_of(task: Task, seed: int) -> int:
    """The number of classes that a task's network tells apart.

    Args:
        task: the task.
        seed: decides the network that is built to see its outputs.

    Raises:
        TombolaError: if the targets are not class numbers.
    """
    _, targets = _first_batch(task, 0)
    with own_randomness(torch.device("cpu"), seed), torch.no_grad():
        outputs = Run(seed).probe(task)(task.build(seed))
    numbers = isinstance(targets, Tensor) and not targets.is_floating_point()
    if not (numbers and isinstance(outputs, Tensor) and outputs.ndim > 1 and outputs.shape[1] > 1):
        raise TombolaError("labels can be drawn at random only where targets are class numbers; leave the control out")
    return outputs.shape[1]


@dataclass(frozen=True)
class _Each:
    """Batches, each altered with a generator seeded by the seed and the batch's number."""

    source: Iterable[Batch]
    alter: Alter
    seed: int

    @property
    def samples(self) -> int:
        return samples_of(self.source)

    def __len__(self) -> int:
        return length_of(self.source)

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(pairs_of(self.source)):
            yield self.alter(batch, torch.Generator().manual_seed(mixed(self.seed, number)))


@dataclass(frozen=True)
class _FirstHalf:
    """The first half of some batches."""

    source: Iterable[Batch]

    @property
    def samples(self) -> int:
        return samples_of(self.source, len(self))

    def __len__(self) -> int:
        return length_of(self.source) // 2

    def __iter__(self) -> Iterator[Batch]:
        return islice(pairs_of(self.source), len(self))


def _permuted(inputs: Tensor, generator: torch.Generator) -> Tensor:
    flat = inputs.flatten(1)
    order = torch.rand(flat.shape, generator=generator).argsort(1).to(flat.device)
    return flat.gather(1, order).view_as(inputs)


def _first_batch(task: Task, epoch: int) -> Batch:
    with own_randomness(torch.device("cpu"), epoch):  # a data loader that shuffles draws from the global generator
        return first_of(task.batches("train", 0, epoch))


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return all(_equal(first[key], second[key]) for key in first)
    if isinstance(first, tuple | list):
        return all(_equal(a, b) for a, b in zip(first, second, strict=True))
    return first == second
