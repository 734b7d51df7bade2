"""After a cut: batch norms' statistics taken anew, a fall of the metric said, a smaller network pruned again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.shrinking import AccuracyWarning, recalibrate
from tombola.structure import FloorWarning


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Dropout(0.5), nn.Flatten(), nn.Linear(128, 5)),
    )


BATCHES = [(torch.randn(16, 1, 8, 8), torch.arange(16) % 5) for _ in range(3)]


def half(model: nn.Module, most: float = 0.9, scope: str = "layerwise") -> tb.Mask:
    units = tb.Channels(most=most).units(model, lambda own: own(BATCHES[0][0].to(next(own.parameters()).device)))
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope=scope, within=None, floor=0)
    return units.expand(kept, dict(model.named_parameters()))


def test_statistics_are_those_of_the_smaller_network():
    model = network()
    small = tb.shrink(model, half(model), example=BATCHES[0][0], recalibrate=BATCHES)
    first = small[0](torch.cat([inputs for inputs, _ in BATCHES]))
    assert torch.allclose(small[1].running_mean, first.mean((0, 2, 3)), atol=1e-6)
    assert small[1].momentum == 0.1
    assert small.training
    assert small[6].training
    assert torch.equal(model[1].running_mean, torch.zeros(8)), "the network that was given has changed"


def test_dropout_stays_silent_while_statistics_are_taken():
    model, other = network(), network()
    recalibrate(model, BATCHES, lambda own, inputs: own(inputs))
    torch.manual_seed(5)
    recalibrate(other, BATCHES, lambda own, inputs: own(inputs))
    assert torch.equal(model[4].running_var, other[4].running_var)


def test_a_fall_of_accuracy_is_said():
    model = network().eval()
    mask = half(model)
    with torch.no_grad():
        data = [(inputs, model(inputs).argmax(1)) for inputs, _ in BATCHES]
    with pytest.warns(AccuracyWarning, match=r"fell from 100\.0% to "):
        tb.shrink(model, mask, example=BATCHES[0][0], data=data)
    tb.shrink(model, mask, example=BATCHES[0][0], data=data, metric=lambda outputs, targets: torch.ones(()))


def test_a_smaller_network_is_pruned_again():
    model = network()
    small = tb.shrink(model, half(model), example=BATCHES[0][0])
    smaller = tb.shrink(copy.deepcopy(small), half(small), example=BATCHES[0][0])
    assert [own.out_channels for own in (small[0], small[3], smaller[0], smaller[3])] == [4, 4, 2, 2]


def test_no_batches_is_one_sentence():
    with pytest.raises(tb.TombolaError, match="recalibrate= has no batch"):
        recalibrate(network(), [], lambda own, inputs: own(inputs))


def test_a_layer_that_falls_to_its_floor_is_named():
    model = network()
    with torch.no_grad():
        model[3].weight[1:] *= 1e-3  # one channel is worth nearly all of its layer
    with pytest.warns(FloorWarning, match=r"'3' fell to the least that a layer keeps \(2 of 8"):
        mask = half(model, most=0.75, scope="global")
    assert mask.kept("4.weight") == 2
