"""Tasks that a search is given in place of its own: with other training data, or begun at trained weights."""

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
from tombola.training import MemoryBatches, Run, Split, Task, TaskWrapper, length_of, mixed, own_randomness, pick
from tombola.training import train_samples as samples_of

Alter = Callable[[Batch, torch.Generator], Batch]
AT_ONCE = 1000
"""Images permuted together, so that their orders take little memory."""


@dataclass(frozen=True)
class RandomLabels:
    """Each target a class number drawn uniformly."""

    classes: int

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        inputs, targets = batch
        return inputs, torch.randint(self.classes, targets.shape, generator=generator).to(targets)


@dataclass(frozen=True)
class RandomImages(RandomLabels):
    """All values of each image in an order of its own, and each target a class number drawn uniformly."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        inputs, targets = super().__call__(batch, generator)
        if not (isinstance(inputs, Tensor) and inputs.ndim > 1):
            raise TombolaError("pixels can be permuted in inputs that are one tensor alone; use corrupted-labels")
        return torch.cat([_permuted(part, generator) for part in inputs.split(AT_ONCE)]), targets


@dataclass(frozen=True)
class AlteredData(TaskWrapper):
    """A task whose training data alone is altered, from a seed.

    Data in memory is altered whole and before any augmentation, so that a sample stays what it became; data that comes
    in batches is altered batch by batch.
    """

    alter: Alter
    seed: int

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]:
        batches = self.task.batches(split, seed, epoch)
        if split != "train":
            return batches
        if isinstance(batches, MemoryBatches):
            inputs, targets = self._whole
            return replace(batches, inputs=inputs, targets=targets)
        return _Each(batches, self.alter, self.seed)

    @cached_property
    def _whole(self) -> Batch:
        """All training data in memory, altered."""
        batches = self.task.batches("train", 0, 0)
        assert isinstance(batches, MemoryBatches)
        return self.alter((batches.inputs, batches.targets), torch.Generator().manual_seed(self.seed))


@dataclass(frozen=True)
class HalfData(TaskWrapper):
    """A task with the first half of its training data: of the samples in memory, else of the batches."""

    def __post_init__(self) -> None:
        batches = self.task.batches("train", 0, 0)
        if isinstance(batches, MemoryBatches):
            enough = batches.count > 3
        else:
            enough = length_of(batches) > 1
            if not _same(*(_first(self.task, epoch) for epoch in (0, 1))):
                raise TombolaError(
                    "the training batches are others in each epoch, so that no half of the data can be cut off; give "
                    "data in memory, or batches in a fixed order"
                )
        if not enough:
            raise TombolaError("the training data is too little to be halved; give two batches at least")

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
    """A task whose networks are built at these values."""

    values: Mapping[str, Tensor]

    def build(self, seed: int) -> nn.Module:
        model = self.task.build(seed)
        put_values(model, self.values)
        return model


def classes_of(task: Task, seed: int) -> int:
    """Between how many classes a task's network chooses; TombolaError where its targets are not class numbers."""
    _, targets = _first(task, 0)
    with own_randomness(torch.device("cpu"), seed), torch.no_grad():
        outputs = Run(seed).probe(task)(task.build(seed))
    numbers = isinstance(targets, Tensor) and not targets.is_floating_point()
    if not (numbers and isinstance(outputs, Tensor) and outputs.ndim > 1 and outputs.shape[1] > 1):
        raise TombolaError("labels can be drawn at random where targets are class numbers alone; leave the control out")
    return outputs.shape[1]


@dataclass(frozen=True)
class _Each:
    """Batches, each altered from the seed and its number."""

    source: Iterable[Batch]
    alter: Alter
    seed: int

    @property
    def samples(self) -> int:
        return samples_of(self.source)

    def __len__(self) -> int:
        return length_of(self.source)

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self.source):
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
        return islice(iter(self.source), len(self))


def _permuted(inputs: Tensor, generator: torch.Generator) -> Tensor:
    flat = inputs.flatten(1)
    order = torch.rand(flat.shape, generator=generator).argsort(1).to(flat.device)
    return flat.gather(1, order).view_as(inputs)


def _first(task: Task, epoch: int) -> Batch:
    with own_randomness(torch.device("cpu"), epoch):
        return next(iter(task.batches("train", 0, epoch)))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return all(_same(one[key], other[key]) for key in one)
    return all(_same(a, b) for a, b in zip(one, other, strict=True)) if isinstance(one, tuple | list) else one == other
