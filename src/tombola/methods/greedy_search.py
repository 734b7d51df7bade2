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
    """What the search in one layer came to.

    Args:
        factors: what each unit is multiplied by, shape (units,); 0 where it is removed.
        loss: the loss, or for imitation the error, after the last pick.
        enough: whether the layer reached its goal, or had none.
    """

    factors: Tensor
    loss: float
    enough: bool


@dataclass(frozen=True)
class Goal:
    """When a layer has enough: its metric on some batches is near enough to the whole network's.

    Args:
        whole: the metric of the whole network.
        tolerance: how much worse the layer's metric may be, as a share of it.
        batches: what the metric is taken on.
        of: the metric, of outputs and targets.
        lower: smaller is better.
    """

    whole: float
    tolerance: float
    batches: tuple[Batch, ...]
    of: Callable[[Any, Any], Tensor]
    lower: bool = False

    def near(self, metric: float) -> bool:
        """Whether the metric on the few samples of one step is a reason to look at the batches."""
        return self._sign * metric >= self._sign * self.whole - max(GATE, self.tolerance) * abs(self.whole)

    def met(self, network: PrefixCache, factors: Tensor | None = None) -> bool:
        """Whether the metric on the batches is within the tolerance."""
        metric = mean_metric(self.of, self.batches, network, factors)
        return self._sign * metric >= self._sign * self.whole - self.tolerance * abs(self.whole)

    @property
    def _sign(self) -> int:
        return -1 if self.lower else 1


def mean_metric(
    of: Callable[[Any, Any], Tensor], batches: Iterable[Batch], network: PrefixCache, factors: Tensor | None = None
) -> float:
    """The network's mean metric over all samples, with its channels multiplied by the factors if there are any."""
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

    The n-th pick moves the weights, which sum to 1, to a ← (1−1/n)a + e/n; units are multiplied by size · a.

    Args:
        network: the network to try.
        draws: the batches on which the candidates of each pick are tried.
        size: how many units the layer has.
        picks: how many picks at most.
        loss: of outputs and targets.
        repeat: whether a unit may be picked again.
        candidates: how many random units are tried for a pick; all if None.
        generator: draws these.
        goal: ends the search where it is met; without one, all picks are made.
    """
    weights = torch.zeros(size, dtype=torch.float64)
    loss_after = float("inf")
    for number in range(1, picks + 1):
        units = torch.arange(size) if repeat else (weights == 0).nonzero().flatten()
        if candidates is not None:
            units = units[torch.randperm(len(units), generator=generator)[:candidates]]
        candidate_weights = (1 - 1 / number) * weights.repeat(len(units), 1)
        candidate_weights[torch.arange(len(candidate_weights)), units] += 1 / number
        batches = next(draws)
        losses, metrics = _candidate_losses(network, batches, size * candidate_weights, loss, goal.of if goal else None)
        best = int(losses.argmin())
        weights, loss_after = candidate_weights[best], float(losses[best])
        if goal is not None and goal.near(float(metrics[best])) and goal.met(network, size * weights):
            return ChannelPicks(size * weights, loss_after, True)
    return ChannelPicks(size * weights, loss_after, goal is None)


def _candidate_losses(
    network: PrefixCache, batches: list[Batch], factors: Tensor, loss: Loss, metric: Callable[[Any, Any], Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Each candidate's mean loss and, if one is given, metric."""
    totals = torch.zeros(2, len(factors), dtype=torch.float64)
    samples = sum(batch_size(batch) for batch in batches)
    for batch in batches:
        inputs, targets = batch
        pairs = []
        for outputs in network.outputs(inputs, factors):
            value = loss(outputs, targets)
            measured = torch.as_tensor(metric(outputs, targets) if metric else value, device=value.device)
            pairs.append(torch.stack([value.double(), measured.double()]))
        totals += torch.stack(pairs, 1).cpu() * batch_size(batch) / samples
    losses, metrics = totals
    # A candidate whose loss is NaN must not be the smallest.
    return losses.nan_to_num(torch.inf), metrics


def drawn(task: Task, seed: int, samples: int | None) -> Generator[list[Batch]]:
    """Training samples for one step after another, so many and new ones each time; all of them each time if None."""
    if samples is None:
        everything = list(task.batches("train", seed, 0))
        while True:
            yield everything
    passes = chain.from_iterable(task.batches("train", seed, epoch) for epoch in count())
    while True:
        yield first(passes, samples)


def first(batches: Iterable[Batch], samples: int) -> list[Batch]:
    """The first batches, with so many samples together, or all that there are."""
    taken: list[Batch] = []
    for inputs, targets in batches:
        count = min(samples, batch_size((inputs, targets)))
        taken.append((pick(inputs, slice(count)), pick(targets, slice(count))))
        samples -= count
        if not samples:
            break
    return taken
