"""Channels and attention heads as the units of one search: counted, masked, cut, protected, and refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import tombola as tb
from networks import short_transformer
from tombola.shrinking import SmallSizes
from tombola.structure import ChannelsAndHeads, PartUnits, granularity, sizes_of, with_widths
from tombola.testing import toy_task

IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
KINDS = ("channel+head", "channel:streams+head")


def probe(model: nn.Module) -> torch.Tensor:
    parameter = next(model.parameters())
    return model(IMAGES.to(parameter.device, parameter.dtype))


def chosen(model: nn.Module, kind: ChannelsAndHeads, density: float = 0.5, scope="layerwise", within=None):
    units = kind.units(model, probe)
    kept = units.choose(tb.scores.magnitude(model), density, scope=scope, within=within, floor=1)
    return units, kept, units.expand(kept, dict(model.named_parameters()))


@pytest.mark.parametrize("name", KINDS)
def test_it_removes_what_channels_and_heads_remove_each(name):
    model, kind = short_transformer(), granularity(name)
    assert kind.name == name
    units, kept, mask = chosen(model, kind)
    alone = [own.units(model, probe) for own in (kind.channels, PartUnits("head"))]
    each = [own.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1) for own in alone]
    assert dict(kept).keys() == {*each[0], *(f"head:{name}" for name in each[1])}
    masks = [own.expand(its, dict(model.named_parameters())) for own, its in zip(alone, each, strict=True)]
    assert mask == masks[0] & masks[1]
    assert units.kept(units.removed(kept)) == kept
    assert sum(sizes_of(units).values()) == kept.size


@pytest.mark.parametrize("name", KINDS)
def test_the_smaller_network_is_the_masked_one_also_after_a_step(name):
    model = short_transformer()
    *_, mask = chosen(model, granularity(name))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    with tb.attach(mask, model, optimizer):
        model(IMAGES).square().sum().backward()
        optimizer.step()
    twin = copy.deepcopy(model)
    small = tb.shrink(model, mask, optimizer, IMAGES)
    others = torch.randn(3, 1, 8, 8).double()
    assert (twin.double()(others) - small.double()(others)).abs().max() < 1e-12
    assert tb.shrinking.preview(model, mask, IMAGES).mask == tb.Mask({})


def test_with_streams_all_widths_of_a_transformer_are_halved():
    model = short_transformer()
    whole = SmallSizes(model, IMAGES)
    left = {
        name: whole.of(chosen(model, granularity(name))[2]).flops / whole.whole.flops
        for name in ("channel:streams", *KINDS)
    }
    assert left["channel:streams+head"] < 0.3 < left["channel:streams"] < left["channel+head"] < 1


def test_a_target_an_earlier_mask_and_rounds_hold():
    model = short_transformer()
    how = {"granularity": ChannelsAndHeads(), "model": model, "example": IMAGES}
    scores = tb.scores.magnitude(model)
    first = tb.select(scores, flops=0.7, **how)
    second = tb.select(scores, flops=0.5, within=first, **how)
    assert second & first == second
    assert SmallSizes(model, IMAGES).of(second).flops <= 0.5 * SmallSizes(model, IMAGES).whole.flops


def test_what_is_protected_of_one_kind_leaves_the_other():
    model = short_transformer()
    every = sizes_of(ChannelsAndHeads().units(model, probe))
    heads = [name for name in every if name.startswith("head:")]
    layers = tuple(name.removeprefix("head:") for name in heads)
    units, kept, _ = chosen(model, with_widths(ChannelsAndHeads(), protect=layers))
    assert heads
    assert set(kept) == set(sizes_of(units)) == set(every) - {*heads}
    with pytest.raises(tb.TombolaError, match="protect fewer layers"):
        chosen(model, with_widths(ChannelsAndHeads(), protect="*"))


def test_a_network_without_heads_and_units_of_another_network_are_refused():
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(tb.TombolaError, match="no heads that are known"):
        ChannelsAndHeads().units(plain, probe)
    with pytest.raises(tb.TombolaError, match="not this network's"):
        ChannelsAndHeads().units(short_transformer(), probe).kept({"layer9": (0,)})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", [tb.Iterative(count=1), tb.EarlyBird()])
def test_methods_find_such_tickets_which_are_read_from_their_files(method, tmp_path):
    task = toy_task(short_transformer)
    found = tb.find(task, replace(method, granularity=ChannelsAndHeads(streams=True), density=0.5))
    found.save(tmp_path / "ticket.pt")
    assert tb.Ticket.load(tmp_path / "ticket.pt").removed == found.removed
