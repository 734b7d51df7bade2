"""Picking a layer's channels one by one: candidates' losses, the samples they are tried on, and when it is enough."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Literal

import torch
from torch import Tensor

from tombola.methods.prefix_cache import PrefixCache
from tombola.scores import Batch, Loss, batch_size
from tombola.training import Task, pick

GATE = 0.05
"""How near, relatively, the metric on a step's own samples must come to the whole network's for a closer look.

A tolerance that is larger takes its place.
"""

Losses = Literal["task", "squared"]


@dataclass(frozen=True)
class ChannelPicks:
    """What came of a layer: a factor for each unit, 0 where it is removed; its last loss or error; whether it did."""

    factors: Tensor
    loss: float
    enough: bool


@dataclass(frozen=True)
class Goal:
    """When a layer has enough: its metric on some batches is within a relative tolerance of the whole network's."""

    whole: float
    tolerance: float
    batches: tuple[Batch, ...]
    of: Callable[[Any, Any], Tensor]

    def near(self, metric: float) -> bool:
        """Whether the metric on a step's own samples, few as they are, is reason to look at the batches."""
        return metric >= self.whole - max(GATE, self.tolerance) * abs(self.whole)

    def met(self, network: PrefixCache, factors: Tensor | None = None) -> bool:
        metric = mean_metric(self.of, self.batches, network, factors)
        return metric >= self.whole - self.tolerance * abs(self.whole)


def mean_metric(
    of: Callable[[Any, Any], Tensor], batches: Iterable[Batch], network: PrefixCache, factors: Tensor | None = None
) -> float:
    """The mean metric over all samples of the network, with its channels multiplied where factors are given."""
    total, samples = 0.0, 0
    for batch in batches:
        inputs, targets = batch
        total += float(of(network.call(inputs, factors), targets)) * batch_size(batch)
        samples += batch_size(batch)
    return total / samples


def select_channels(
    network: PrefixCache,
    draws: Generator[list[Batch]],
    size: int,
    picks: int,
    loss: Loss,
    *,
    repeat: bool,
    candidates: int | None,
    generator: torch.Generator,
    goal: Goal | None,
) -> ChannelPicks:
    """Start from nothing, and again and again add the unit that leaves the smallest loss.

    The n-th pick moves the weights, which sum to 1, a ← (1 − 1/n)a + e/n, and units are multiplied by size · a. With a
    goal it ends where that is met; if it never is, not enough.
    """
    weights = torch.zeros(size, dtype=torch.float64)
    lowest = float("inf")
    for number in range(1, picks + 1):
        open_units = torch.arange(size) if repeat else (weights == 0).nonzero().flatten()
        if candidates is not None:
            open_units = open_units[torch.randperm(len(open_units), generator=generator)[:candidates]]
        tried = (1 - 1 / number) * weights.repeat(len(open_units), 1)
        tried[torch.arange(len(tried)), open_units] += 1 / number
        batches = next(draws)
        losses, metrics = _tried(network, batches, size * tried, loss, goal.of if goal else None)
        best = int(losses.argmin())
        weights, lowest = tried[best], float(losses[best])
        if goal is not None and goal.near(float(metrics[best])) and goal.met(network, size * weights):
            return ChannelPicks(size * weights, lowest, True)
    return ChannelPicks(size * weights, lowest, goal is None)


def _tried(
    network: PrefixCache, batches: list[Batch], factors: Tensor, loss: Loss, metric: Callable[[Any, Any], Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Each candidate's mean loss and, if one is given, metric."""
    totals = torch.zeros(2, len(factors), dtype=torch.float64)
    samples = sum(batch_size(batch) for batch in batches)
    for batch in batches:
        inputs, targets = batch
        seen = []
        for outputs in network.outputs(inputs, factors):
            value = loss(outputs, targets)
            shown = torch.as_tensor(metric(outputs, targets) if metric else value, device=value.device)
            seen.append(torch.stack([value.double(), shown.double()]))
        totals += torch.stack(seen, 1).cpu() * batch_size(batch) / samples
    losses, metrics = totals
    return losses.nan_to_num(torch.inf), metrics


def drawn(task: Task, seed: int, samples: int | None) -> Generator[list[Batch]]:
    """Step after step so many training samples, new ones each time; all of them if None."""
    if samples is None:
        everything = list(task.batches("train", seed, 0))
        while True:
            yield everything
    passes = chain.from_iterable(task.batches("train", seed, epoch) for epoch in count())
    while True:
        yield first(passes, samples)


def first(batches: Iterable[Batch], samples: int) -> list[Batch]:
    """The first batches, of so many samples together, or of all that there are."""
    taken: list[Batch] = []
    for inputs, targets in batches:
        here = min(samples, batch_size((inputs, targets)))
        taken.append((pick(inputs, slice(here)), pick(targets, slice(here))))
        samples -= here
        if not samples:
            break
    return taken
