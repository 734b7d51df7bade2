"""A whole network and those of its workers as one module, and the task that gives each worker batches of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tombola.scores import Batch
from tombola.structure import own_random_state
from tombola.tickets import device_of
from tombola.training import (
    MemoryBatches,
    OptimizerFactory,
    Split,
    TaskWrapper,
    length_of,
    mixed,
    own_randomness,
    pairs_of,
    placed,
    train_samples,
)


@dataclass(frozen=True, eq=False)
class Ration:
    """The inputs of one worker's batch.

    Args:
        worker: its rank.
        seed: of what the worker's network draws on this batch.
        inputs: what the task gives.
    """

    worker: int
    seed: int
    inputs: Any


class Team(nn.Module):
    """The whole network, which does not train, and the networks of the workers that train here.

    Args:
        whole: the network.
        workers: the smaller ones, by the worker's rank.
    """

    def __init__(self, whole: nn.Module, workers: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.whole = whole.requires_grad_(requires_grad=False)
        self.networks = nn.ModuleList(workers.values())
        self.ranks = tuple(workers)

    @property
    def workers(self) -> dict[int, nn.Module]:
        """The workers' networks by rank."""
        return dict(zip(self.ranks, self.networks, strict=True))

    def network(self, rank: int) -> nn.Module:
        """One worker's network."""
        return self.networks[self.ranks.index(rank)]


@dataclass(frozen=True)
class TeamTask(TaskWrapper):
    """The task of a team: each worker's batches take turns, and what is measured is the whole network.

    All that is random in a worker's step follows from the seed, the worker and the batch: so that it is the same
    whether workers train in one process or in several, and after a kill.

    Args:
        ranks: the workers that train here.
        leads: whether the whole network is here, and so is measured.
        device: where batches go.
    """

    ranks: tuple[int, ...] = ()
    leads: bool = True
    device: torch.device = torch.device("cpu")

    @property
    def optimizer(self) -> OptimizerFactory | None:
        factory = super().optimizer
        return None if factory is None else partial(_of_team, factory)

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]:
        if split == "train":
            seeds = {rank: mixed(seed, rank) if rank else seed for rank in self.ranks}
            own = {rank: self.task.batches(split, own_seed, epoch) for rank, own_seed in seeds.items()}
            return Rations(own, seeds, epoch, self.device)
        return self.task.batches(split, seed, epoch) if self.leads else ()

    def forward(self, model: nn.Module, inputs: Any, /) -> Any:
        if not isinstance(inputs, Ration):
            return self.task.forward(model.whole, inputs)  # ty: ignore[invalid-argument-type]
        network = model.network(inputs.worker)  # ty: ignore[not-callable]
        with own_random_state(device_of(network), inputs.seed):
            return self.task.forward(network, inputs.inputs)


@dataclass(frozen=True, eq=False)
class Rations:
    """One pass of all workers over the training data: the first batch of each, then the second of each, and so on.

    Args:
        batches: each worker's.
        seeds: each worker's.
        epoch: which pass this is.
        device: where batches go.
    """

    batches: Mapping[int, Iterable[Batch]]
    seeds: Mapping[int, int]
    epoch: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.batches) * min(map(length_of, self.batches.values()))

    @property
    def samples(self) -> int:
        """How many samples all workers get."""
        return sum(map(train_samples, self.batches.values()))

    def __iter__(self) -> Iterator[Batch]:
        for turn in zip(*map(self._of_worker, self.batches), strict=False):
            yield from turn

    def _of_worker(self, rank: int) -> Generator[Batch]:
        batches = iter(placed(pairs_of(self.batches[rank]), self.device))
        draws = not isinstance(self.batches[rank], MemoryBatches)  # these have a generator of their own
        for place in range(length_of(self.batches[rank])):
            seed = mixed(self.seeds[rank], self.epoch, place)
            if draws:
                with own_randomness(self.device, seed):
                    batch = next(batches, None)
            else:
                batch = next(batches, None)
            if batch is None:
                return
            yield Ration(rank, seed, batch[0]), batch[1]


def _of_team(factory: OptimizerFactory, team: Any) -> Optimizer:
    """One optimizer of all workers, from what makes that of one."""
    first, *others = [factory(network) for network in team.networks]
    for other in others if isinstance(first, Optimizer) else ():  # if it is none, who uses it says so
        for group in other.param_groups:
            first.add_param_group(group)
    return first
