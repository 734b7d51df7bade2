"""How far two rankings of a layer's filters are apart, and when rankings have settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from statistics import fmean

import torch
from torch import Tensor

from tombola.errors import TombolaError

Ranking = dict[str, list[int]]
"""The filters of each layer by number, from the first to the last."""


def ranking_distance(first: Sequence[int], second: Sequence[int]) -> float:
    """How far one ranking of a layer's filters is from another: F = Σᵢ 1/i · |ln i − ln σ(i)|.

    σ(i) is the place in the second ranking of the filter that has place i in the first, counted from 1. F is Spearman's
    footrule with logarithms for places, in which high places weigh more (Wang et al., LoFT, AISTATS 2023). It is 0 for
    equal rankings alone, is at most ln n · (1 + 1/2 + … + 1/n), and changes if the rankings change places.

    Args:
        first: the filters, best first.
        second: the same filters in another order.

    Raises:
        TombolaError: if the two do not rank the same filters.

    Examples:
        >>> round(ranking_distance([0, 1, 2], [1, 0, 2]), 4)  # 1.5 · ln 2
        1.0397
        >>> ranking_distance([4, 2, 7], [4, 2, 7])
        0.0
    """
    places = {own: place for place, own in enumerate(second, 1)}
    if len(places) != len(second) or sorted(first) != sorted(places):
        raise TombolaError("the two rankings are not of the same filters; give two orders of one layer's filters")
    here = torch.arange(1, len(first) + 1, dtype=torch.double)
    there = torch.tensor([places[own] for own in first], dtype=torch.double)
    return float(((here.log() - there.log()).abs() / here).sum())


@cache
def chance_distance(filters: int) -> float:
    """The mean of `ranking_distance` over all rankings of so many filters, which is what chance comes to.

    Examples:
        >>> round(chance_distance(2), 4)  # one of two rankings is 1.5 · ln 2 away
        0.5199
    """
    places = torch.arange(1, filters + 1, dtype=torch.double)
    gaps = (places.log()[:, None] - places.log()).abs().mean(1)
    return float((gaps / places).sum())


def ranked(worths: Mapping[str, Tensor]) -> Ranking:
    """Rank filters by what they are worth, from the largest down; equal ones by their number.

    Args:
        worths: one number a filter, by layer.

    Examples:
        >>> ranked({"conv1": torch.tensor([0.1, 0.3, 0.2])})
        {'conv1': [1, 2, 0]}
    """
    return {layer: own.argsort(descending=True, stable=True).tolist() for layer, own in worths.items()}


def mean_distance(first: Ranking, second: Ranking) -> float:
    """The mean over layers of the distances of their rankings."""
    return fmean(ranking_distance(first[layer], second[layer]) for layer in first)


def relative_distance(first: Ranking, second: Ranking) -> float:
    """The mean over layers of the distances of their rankings, each as a share of what chance comes to."""
    return fmean(
        ranking_distance(own, second[layer]) / (chance_distance(len(own)) or 1.0) for layer, own in first.items()
    )


class Settling:
    """Watches rankings settle.

    Args:
        epsilon: they have when the newest is less than this far from each other one of the window, as a share of what
            chance comes to; 0 for never.
        window: how many rankings are looked at.
    """

    def __init__(self, epsilon: float, window: int) -> None:
        self.epsilon = epsilon
        self.window = window
        self.rankings: list[Ranking] = []

    def look(self, ranking: Ranking) -> dict[str, float]:
        """Take in a ranking.

        Returns:
            How far it is from the one before it: `ranking_distance`, the mean of F over layers, and as a share of what
            chance comes to `ranking_share`; nothing for the first ranking.
        """
        self.rankings = [*self.rankings, ranking][-self.window :]
        if len(self.rankings) < 2:
            return {}
        before = self.rankings[-2]
        return {
            "ranking_distance": mean_distance(before, ranking),
            "ranking_share": relative_distance(before, ranking),
        }

    @property
    def distance(self) -> float:
        """The largest share of chance between the newest ranking and another of the window; 1 until that is full."""
        if len(self.rankings) < self.window:
            return 1.0
        return max(relative_distance(earlier, self.rankings[-1]) for earlier in self.rankings[:-1])

    @property
    def settled(self) -> bool:
        """Whether the rankings have settled."""
        return len(self.rankings) == self.window and self.distance < self.epsilon
