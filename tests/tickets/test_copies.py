"""Copies of networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

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
