"""The feed: batches for all members at once, for each in the order of its own seed."""

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
from tombola.training.loaders import LoadedBatches
from tombola.training.task import Task

NARROW = 16
"""Numbers in a sample below which they are gathered as columns: products with rows so short are slow."""


@dataclass(frozen=True)
class _Buffers:
    """Where a step's samples are gathered.

    index: sample numbers, (members, batch); gathered and inputs: one memory, as it is gathered and as members see it.
    """

    index: Tensor
    gathered: Tensor
    inputs: Tensor
    targets: Tensor


class Feed:
    """Batches from memory: the data are on the device once, and one gather a step serves all members.

    Images to augment are batched for each seed alone and stacked.

    Args:
        task: gives the training batches, which must be `MemoryBatches`.
        seeds: one a member; members with one seed share an order.
        device: where members train.
    """

    def __init__(self, task: Task, seeds: Sequence[int], device: torch.device) -> None:
        self._task, self._seeds = task, seeds
        batches = self._passes(0)[seeds[0]]
        self.count, self.size, self.steps = batches.count, batches.size, len(batches)
        self.samples = train_samples(batches)
        self.device = device
        self._buffers: dict[int, _Buffers] = {}
        self._orders = torch.empty(len(seeds), self.count, dtype=torch.int32)
        self._inputs, self.targets = batches.inputs.to(device), batches.targets.to(device)
        self._shape = batches.inputs.shape[1:]
        self._narrow = math.prod(self._shape) < NARROW
        if self._narrow:
            self._inputs = self._inputs.reshape(self.count, -1).T.contiguous()

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """One pass over the training split.

        Args:
            epoch: whose order.
            first: the batch to begin with, from 0.

        Yields:
            Inputs, (members, batch, …), and targets, (members, batch). The next step overwrites them.
        """
        passes = self._passes(epoch)
        if next(iter(passes.values())).augment:
            yield from islice(self._stacked(passes), first, None)
            return
        for order in islice(self._draw_orders(passes).split(self.size, 1), first, self.steps):
            buffers = self._buffers_for(order.shape[1])
            index = buffers.index.copy_(order).view(-1)
            torch.index_select(self._inputs, int(self._narrow), index, out=buffers.gathered)
            torch.index_select(self.targets, 0, index, out=buffers.targets.flatten(0, 1))
            yield buffers.inputs, buffers.targets

    def _draw_orders(self, passes: dict[int, MemoryBatches]) -> Tensor:
        """The order of each member's samples, (members, samples)."""
        generator, rows = torch.Generator(), dict[int, Tensor]()
        for seed, row in zip(self._seeds, self._orders, strict=True):
            rows[seed] = row.copy_(rows[seed]) if seed in rows else passes[seed].order(generator, out=row)
        return self._orders.to(self.device)

    def _passes(self, epoch: int) -> dict[int, MemoryBatches]:
        """Each seed's batches in an epoch."""
        passes = {seed: self._task.batches("train", seed, epoch) for seed in dict.fromkeys(self._seeds)}
        return {seed: batches for seed, batches in passes.items() if isinstance(batches, MemoryBatches)}

    def _buffers_for(self, size: int) -> _Buffers:
        if size not in self._buffers:
            members = len(self._seeds)
            index = torch.empty(members, size, dtype=torch.int32, device=self.device)
            targets = self.targets.new_empty(members, size, *self.targets.shape[1:])
            if self._narrow:
                gathered = self._inputs.new_empty(len(self._inputs), members * size)
                inputs = gathered.view(-1, members, size).permute(1, 2, 0)
            else:
                inputs = gathered = self._inputs.new_empty(members * size, *self._shape)
            self._buffers[size] = _Buffers(index, gathered, inputs.view(members, size, *self._shape), targets)
        return self._buffers[size]

    def _stacked(self, passes: dict[int, MemoryBatches]) -> Iterator[Batch]:
        iterators = {seed: iter(batches) for seed, batches in passes.items()}
        for _ in range(self.steps):
            batches = {seed: next(iterator) for seed, iterator in iterators.items()}
            inputs, targets = zip(*(batches[seed] for seed in self._seeds), strict=True)
            yield torch.stack(inputs).to(self.device), torch.stack(targets).to(self.device)


def feed_obstacle(task: Task) -> str:
    """Why many networks cannot draw a task's batches at once; empty if they can."""
    batches = task.batches("train", 0, 0)
    if not isinstance(batches, MemoryBatches):
        source = batches.source if isinstance(batches, LoadedBatches) else batches
        return f"its training batches come from a {type(source).__name__}, not from tensors in memory"
    if not (isinstance(batches.inputs, Tensor) and isinstance(batches.targets, Tensor)):
        return "its inputs are not one tensor"
    return ""
