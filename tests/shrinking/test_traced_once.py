"""A network is traced once where units are chosen and then cut, and anew if it computes something else since."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.shrinking import plan as planning
from tombola.structure import earlier_wiring

EXAMPLE = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class TwoWays(nn.Module):
    """The last layer reads the first one's neurons, or, turned, those of a second one as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.turned = False

    def forward(self, x):
        hidden = self.first(x).relu()
        return self.last(hidden.flip(1) if self.turned else hidden)


@pytest.fixture
def traces(monkeypatch):
    """How often a network's wiring was read to cut it."""
    counted, own = [], planning.wiring_of

    def wiring_of(model, *given, **how):
        counted.append(type(model).__name__)
        return own(model, *given, **how)

    monkeypatch.setattr(planning, "wiring_of", wiring_of)
    return counted


def half(model: nn.Module) -> tb.Mask:
    scores = tb.scores.magnitude(model)
    return tb.select(scores, 0.5, granularity=tb.Channels(), model=model, example=EXAMPLE, scope="layerwise")


def gap(model: nn.Module, mask: tb.Mask, small: nn.Module) -> float:
    with tb.attach(mask, model), torch.no_grad():
        return float((model(EXAMPLE) - small(EXAMPLE)).abs().max())


def test_what_was_chosen_is_cut_without_another_trace(traces):
    model = TwoWays()
    mask = half(model)
    small = tb.shrink(model, mask, example=EXAMPLE)
    assert traces == []
    assert small.first.out_features == 4
    assert gap(model, mask, small) < 1e-6


def test_code_that_takes_another_way_since_is_traced_anew(traces):
    model = TwoWays()
    mask = half(model)
    model.turned = True
    small = tb.shrink(model, mask, example=EXAMPLE)
    assert traces == ["TwoWays"]
    assert gap(model, mask, small) < 1e-6


def test_other_modules_or_shapes_are_another_network():
    model = TwoWays()
    half(model)
    assert earlier_wiring(model) is not None
    assert earlier_wiring(model, streams=True) is None
    model.last = nn.Linear(8, 3)
    assert earlier_wiring(model) is None


class Folded(nn.Module):
    """Its last layer but one gives places of a number that the code has written in it; given, the first one does."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(4, 3)
        self.first = first

    def forward(self, x):
        x = self.a(x).relu()
        x = self.b(x.view(-1, 8) if self.first else x)
        return self.c(x), x.view(-1, 2, 2)


@pytest.mark.parametrize("first", [False, True])
def test_only_what_could_be_cut_is_tried_where_a_shape_is_written(first):
    calls = []

    def probe(network):
        calls.append(network)
        return network(EXAMPLE.to(next(network.parameters()).device))

    units = tb.Channels().units(Folded(first), probe)
    assert units.families.sizes == ({} if first else {"a": 8})
    assert len(calls) == 1 + first
