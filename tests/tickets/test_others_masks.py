"""Masks of torch.nn.utils.prune, of tensors of zeros and ones, and of a checkpoint's zeros."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from tombola import Mask, TombolaError, attach, select
from tombola.scores import magnitude
from tombola.tickets import ZerosWarning, mask_of_pruned, mask_of_tensors, mask_of_zeros, prune_by


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(36, 3))


NET = make_net()
MASK = select(magnitude(NET), 0.3, scope="layerwise")


@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel], ids=["plain", "wrapped"])
def test_a_mask_goes_into_torchs_pruning_and_comes_back(wrap):
    masked, pruned, images = make_net(), make_net(), torch.randn(2, 1, 5, 5)
    attach(MASK, masked).detach()
    prune_by(MASK, wrap(pruned))
    assert torch.equal(masked(images), pruned(images))
    assert list(pruned.state_dict()) == [
        *("0.bias", "0.weight_orig", "0.weight_mask", "2.bias", "2.weight_orig", "2.weight_mask")
    ]
    assert mask_of_pruned(wrap(pruned)) == mask_of_tensors(wrap(pruned).state_dict(), NET) == MASK
    for layer in (pruned[0], pruned[2]):
        prune.remove(layer, "weight")
    with pytest.raises(TombolaError, match="nothing of this network is pruned by torch"):
        mask_of_pruned(pruned)
    with pytest.warns(ZerosWarning, match=r"25 of 36 weights of '0\.weight', 76 of 108 weights of '2\.weight', which"):
        assert mask_of_zeros(pruned) == MASK
    with pytest.warns(ZerosWarning):
        assert mask_of_zeros(pruned.state_dict(), ["2.weight"]) == Mask({"2.weight": MASK.bits["2.weight"]})


def test_biases_and_global_pruning_of_torch_are_read_too():
    net = make_net()
    prune.global_unstructured([(net[0], "weight"), (net[2], "weight")], prune.L1Unstructured, amount=0.5)
    prune.ln_structured(net[2], "weight", amount=1, n=2, dim=0)
    prune.l1_unstructured(net[2], "bias", amount=1)
    mask = mask_of_pruned(net)
    assert list(mask) == ["0.weight", "2.weight", "2.bias"]
    assert mask.kept("2.bias") == 2
    assert all(torch.equal(mask[name], net.get_buffer(name + "_mask") == 1) for name in mask)


@pytest.mark.parametrize("before", ["", "module.", "model.encoder."])
@pytest.mark.parametrize("after", ["", "_mask"])
@pytest.mark.parametrize(
    "change",
    [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64, torch.Tensor.numpy, torch.Tensor.tolist],
)
def test_tensors_of_zeros_and_ones_are_a_mask_whatever_their_type_and_names(before, after, change):
    given = {
        f"{before}{name}{after}": kept.to(change) if isinstance(change, torch.dtype) else change(kept)
        for name, kept in MASK.items()
    }
    assert mask_of_tensors(given, NET) == MASK


class Names(nn.Module):
    """Its names are those that wrappers and pruning use."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.attention_mask = nn.Parameter(torch.ones(2))


def test_a_networks_own_names_come_first():
    given = {"module.weight": torch.eye(2), "attention_mask": torch.tensor([0, 1])}
    assert list(mask_of_tensors(given, Names())) == ["module.weight", "attention_mask"]


@pytest.mark.parametrize("strange", [0.5, -1.0, 2.0, math.nan, math.inf])
def test_anything_but_zero_and_one_is_refused_by_name(strange):
    given = {name: kept.float() for name, kept in MASK.items()}
    given["2.weight"][1, 2] = strange
    with pytest.raises(TombolaError, match=rf"'2\.weight' holds {strange:g}, and a mask only 0 and 1"):
        mask_of_tensors(given, NET)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "there are no masks"),
        ([], "there are no masks"),
        ({"0.weight": None}, "'0.weight' holds a NoneType"),
        ({"0.weight": MASK["0.weight"], "3.weight": MASK["2.weight"]}, "'3.weight' is no parameter"),
        ({"a.0.weight": MASK["0.weight"], "b.2.weight": MASK["2.weight"]}, "is no parameter of this model"),
        ({"0.weight": torch.ones(2)}, "another architecture"),
        ({"0.weight": MASK["0.weight"], "0.weight_mask": MASK["0.weight"]}, "are masks of one parameter"),
        (NET.state_dict(), "and a mask only 0 and 1"),
    ],
)
def test_what_is_no_mask_of_this_model_is_refused(given, says):
    with pytest.raises(TombolaError, match=says):
        mask_of_tensors(given, NET)


def test_weights_without_zeros_say_nothing():
    with pytest.raises(TombolaError, match="none of the tensors holds an exact 0"):
        mask_of_zeros(NET)
    with pytest.raises(TombolaError, match="no tensor 'a'"):
        mask_of_zeros(NET, ["a"])
