"""The batches of all members, each in the order of its own seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from tombola.scores import Batch
from tombola.training.batches import MemoryBatches
from tombola.training.cost import train_samples
from tombola.training.task import Task

NARROW = 16
"""Numbers in a sample below which a batch is gathered number by number: its products crawl otherwise."""


@dataclass(frozen=True)
class _Room:
    """Where a step's samples go: their numbers, inputs as gathered and as (members, batch, …), targets."""

    numbers: Tensor
    gathered: Tensor
    inputs: Tensor
    targets: Tensor


class Feed:
    """Batches from memory: one gather a step, the data once on the device; augmented images are stacked."""

    def __init__(self, task: Task, seeds: Sequence[int], device: torch.device) -> None:
        self._task, self._seeds = task, seeds
        own = self._passes(0)[seeds[0]]
        self.count, self.size, self.steps = own.count, own.size, len(own)
        self.samples = train_samples(own)
        self.device = device
        self._rooms: dict[int, _Room] = {}
        self._orders = torch.empty(len(seeds), self.count, dtype=torch.int32)
        self._inputs, self.targets = own.inputs.to(device), own.targets.to(device)
        self._shape = own.inputs.shape[1:]
        self._narrow = math.prod(self._shape) < NARROW
        if self._narrow:
            self._inputs = self._inputs.reshape(self.count, -1).T.contiguous()

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """One pass, from its batch `first` on: inputs (members, batch, …) and targets (members, batch)."""
        passes = self._passes(epoch)
        if next(iter(passes.values())).augment:
            yield from islice(self._stacked(passes), first, None)
            return
        for order in islice(self._drawn(passes).split(self.size, 1), first, self.steps):
            room = self._room(order.shape[1])
            numbers = room.numbers.copy_(order).view(-1)
            torch.index_select(self._inputs, int(self._narrow), numbers, out=room.gathered)
            torch.index_select(self.targets, 0, numbers, out=room.targets.flatten(0, 1))
            yield room.inputs, room.targets

    def _drawn(self, passes: dict[int, MemoryBatches]) -> Tensor:
        """The order of each member's samples: (members, samples)."""
        generator, rows = torch.Generator(), dict[int, Tensor]()
        for seed, row in zip(self._seeds, self._orders, strict=True):
            rows[seed] = row.copy_(rows[seed]) if seed in rows else passes[seed].order(generator, out=row)
        return self._orders.to(self.device)

    def _passes(self, epoch: int) -> dict[int, MemoryBatches]:
        passes = {seed: self._task.batches("train", seed, epoch) for seed in dict.fromkeys(self._seeds)}
        return {seed: own for seed, own in passes.items() if isinstance(own, MemoryBatches)}

    def _room(self, size: int) -> _Room:
        if size not in self._rooms:
            members = len(self._seeds)
            numbers = torch.empty(members, size, dtype=torch.int32, device=self.device)
            targets = self.targets.new_empty(members, size, *self.targets.shape[1:])
            if self._narrow:
                gathered = self._inputs.new_empty(len(self._inputs), members * size)
                inputs = gathered.view(-1, members, size).permute(1, 2, 0)
            else:
                inputs = gathered = self._inputs.new_empty(members * size, *self._shape)
            self._rooms[size] = _Room(numbers, gathered, inputs.view(members, size, *self._shape), targets)
        return self._rooms[size]

    def _stacked(self, passes: dict[int, MemoryBatches]) -> Iterator[Batch]:
        passing = {seed: iter(own) for seed, own in passes.items()}
        for _ in range(self.steps):
            batches = {seed: next(own) for seed, own in passing.items()}
            inputs, targets = zip(*(batches[seed] for seed in self._seeds), strict=True)
            yield torch.stack(inputs).to(self.device), torch.stack(targets).to(self.device)


def feed_obstacle(task: Task) -> str:
    """Why a task's batches cannot be drawn for many networks at once; nothing where they can."""
    own = task.batches("train", 0, 0)
    if not isinstance(own, MemoryBatches):
        return f"its training batches come from a {type(own).__name__}, not from tensors in memory"
    if not (isinstance(own.inputs, Tensor) and isinstance(own.targets, Tensor)):
        return "its inputs are not one tensor"
    return ""
