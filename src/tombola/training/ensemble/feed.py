"""The batches of all members, each in the order of its own seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from tombola.scores import Batch
from tombola.training.batches import MemoryBatches
from tombola.training.task import Task


class Feed:
    """Batches from memory: one gather a step, the data once on the device; augmented images are stacked."""

    def __init__(self, task: Task, seeds: Sequence[int], device: torch.device) -> None:
        self._task, self._seeds = task, seeds
        own = self._passes(0)[seeds[0]]
        self.count, self.size, self.steps = own.count, own.size, len(own)
        self.device = device
        self._rooms: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}
        self._inputs, self.targets = own.inputs.to(device), own.targets.to(device)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """One pass, from its batch `first` on: inputs (members, batch, …) and targets (members, batch)."""
        passes = self._passes(epoch)
        if next(iter(passes.values())).augment:
            yield from islice(self._stacked(passes), first, None)
            return
        generator = torch.Generator()
        orders = {seed: own.order(generator) for seed, own in passes.items()}
        order = torch.stack([orders[seed] for seed in self._seeds]).to(self.device)
        for index in islice(order.split(self.size, 1), first, self.steps):
            flat, inputs, targets = self._room(index.shape)
            flat.copy_(index)
            torch.index_select(self._inputs, 0, flat.view(-1), out=inputs.flatten(0, 1))
            torch.index_select(self.targets, 0, flat.view(-1), out=targets.flatten(0, 1))
            yield inputs, targets

    def _passes(self, epoch: int) -> dict[int, MemoryBatches]:
        passes = {seed: self._task.batches("train", seed, epoch) for seed in dict.fromkeys(self._seeds)}
        return {seed: own for seed, own in passes.items() if isinstance(own, MemoryBatches)}

    def _room(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Where the samples' numbers, inputs and targets of one step go, each step anew."""
        if shape not in self._rooms:
            inputs, targets = (own.new_empty(*shape, *own.shape[1:]) for own in (self._inputs, self.targets))
            self._rooms[shape] = torch.empty(shape, dtype=torch.int64, device=self.device), inputs, targets
        return self._rooms[shape]

    def _stacked(self, passes: dict[int, MemoryBatches]) -> Iterator[Batch]:
        passing = {seed: iter(own) for seed, own in passes.items()}
        for _ in range(self.steps):
            batches = {seed: next(own) for seed, own in passing.items()}
            inputs, targets = zip(*(batches[seed] for seed in self._seeds), strict=True)
            yield torch.stack(inputs).to(self.device), torch.stack(targets).to(self.device)


def obstacle(task: Task) -> str:
    """Why a task's batches cannot be drawn for many networks at once; nothing where they can."""
    own = task.batches("train", 0, 0)
    if not isinstance(own, MemoryBatches):
        return f"its training batches come from a {type(own).__name__}, not from tensors in memory"
    if not (isinstance(own.inputs, Tensor) and isinstance(own.targets, Tensor)):
        return "its inputs are not one tensor"
    return ""
