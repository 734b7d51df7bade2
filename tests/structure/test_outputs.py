"""A network's outputs keep their shapes when it is cut, whatever they are wrapped in."""

from __future__ import annotations

import types
from collections import UserDict, deque, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.structure import outputs_in

Levels = namedtuple("Levels", "levels")


@dataclass
class Record:
    levels: list


class Slotted:
    __slots__ = ("levels",)

    def __init__(self, levels):
        self.levels = levels


class Net(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)
        self.wrap = wrap

    def forward(self, x):
        first = self.first(x).relu()
        second = self.second(first).relu()
        return self.head(second.mean((2, 3))), self.wrap([first])


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        deque,
        Record,
        Levels,
        Slotted,
        lambda levels: UserDict(levels=levels),
        lambda levels: types.SimpleNamespace(levels=Record(levels)),
    ],
)
def test_features_that_are_given_to_the_caller_are_not_cut(wrap):
    model, x = Net(wrap), torch.randn(2, 3, 8, 8)
    units = tb.Channels().units(model, lambda network: network(x))
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
    small = tb.shrink(model, units.expand(kept, dict(model.named_parameters())), example=x)
    assert small.first.out_channels == 8
    assert small.second.out_channels == 4
    assert [tensor.shape for tensor in outputs_in(small(x))] == [tensor.shape for tensor in outputs_in(model(x))]


@pytest.mark.parametrize("given", [lambda levels: lambda: levels, iter], ids=["function", "iterator"])
def test_what_nobody_can_look_into_is_refused(given):
    with pytest.raises(tb.TombolaError, match="cannot be known"):
        tb.Channels().units(Net(given), lambda network: network(torch.randn(2, 3, 8, 8)))
