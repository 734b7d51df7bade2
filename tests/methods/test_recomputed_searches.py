"""Law 19: searches and trainings of a network whose activations are computed again are those without."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import tombola as tb
from tombola.testing import toy_task


class Blocks(nn.Module):
    """Two checkpointed blocks with batch norm and dropout; the first one's input has no gradient."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Flatten())
        self.last = nn.Linear(6, 5)

    def forward(self, x):
        for block in (self.first, self.second):
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return self.last(x)


PLAIN = toy_task(Blocks)
RECOMPUTED = [toy_task(partial(Blocks, reentrant)) for reentrant in (True, False)]
SEARCHES = {
    "supermask": tb.method("gem-miner", density=0.3),
    "channels": tb.method("gem-miner", density=0.5, granularity=tb.Channels()),
    "edge-popup": tb.methods.EdgePopup(density=0.3),
    "soft mask": tb.methods.ContinuousSparsification(density=0.3, rounds=2),
    "concrete": tb.methods.ConcreteTicketSearch(density=0.3),
    "regrowth": tb.method("rigl", density=0.3),
    "movement": tb.Iterative(density=0.3, count=1, score=tb.scores.Movement(), rewind="3it"),
    "traced channels": tb.OneShot(density=0.5, granularity=tb.Channels()),
}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.filterwarnings("ignore::tombola.methods.SearchWarning")
def test_a_search_finds_the_same_ticket(name):
    tickets = [tb.find(task, SEARCHES[name], progress=False) for task in (PLAIN, *RECOMPUTED)]
    assert len({ticket.digest for ticket in tickets}) == 1


def test_a_training_moves_weights_and_statistics_as_without():
    ticket = tb.find(PLAIN, tb.OneShot(density=0.3), progress=False)
    plain, *others = (tb.train(task, ticket) for task in (PLAIN, *RECOMPUTED))
    for other in others:
        assert all(torch.equal(plain.model.state_dict()[name], t) for name, t in other.model.state_dict().items())
        assert (plain.metric, plain.loss) == (other.metric, other.loss)


def test_networks_that_train_together_are_told_apart_from_checkpointed_ones():
    for task in RECOMPUTED:
        results = tb.training.train_together(task, [tb.training.Member(0), tb.training.Member(1)])
        assert [result.together for result in results] == [1, 1]
        assert results[0].metric == tb.train(PLAIN).metric
