"""Copies of networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.tickets import copied


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_copy_is_deepcopys_and_what_a_call_left_behind_is_no_obstacle():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.utils.weight_norm(nn.Linear(4, 2)))
    x = torch.randn(5, 3)
    model[0].register_forward_hook(lambda *_: None)
    model[1].table, model[1].same = {}, [model[1]]
    model(x)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    twin = copied(model)
    assert torch.equal(twin.eval()(x), model.eval()(x))
    assert len(twin[0]._forward_hooks) == 1
    assert twin[1].table is not model[1].table
    assert twin[1].same[0] is twin[1]
    twin[1].register_forward_hook(lambda *_: None)
    assert not model[1]._forward_hooks
    assert not {id(own) for own in twin.parameters()} & {id(own) for own in model.parameters()}


class Remade(nn.Linear):
    """Says itself how it is made again."""

    def __reduce_ex__(self, protocol):
        return Remade, (self.in_features, self.out_features)


def test_tables_that_modules_share_and_modules_that_say_how_they_are_copied():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), Remade(3, 2))
    model[0].seen = model[1].seen = {model[1]: [1], "last": model[2]}
    twin = copied(model)
    assert twin[0].seen is twin[1].seen is not model[0].seen
    assert twin[0].seen == {twin[1]: [1], "last": twin[2]}
    assert twin[0].seen[twin[1]] is not model[0].seen[model[1]]
    assert twin[2].weight is not model[2].weight
    assert copied(model, {id(model[1]): model[0]})[1] is model[0]


def test_what_cannot_be_copied_is_said():
    model = nn.Linear(2, 3)
    model.seen = [model.weight * 2]
    with pytest.raises(TombolaError, match="cannot be copied"):
        copied(model)
