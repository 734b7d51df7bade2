"""A mask becomes a SHiRA adapter of PEFT and comes back, and both train the same network."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tombola import Mask, TombolaError, attach
from tombola.integrations.peft import as_adapter, mask_of_adapter, shira_config, shira_mask
from tombola.scores import magnitude, snip

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")


def base_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 2))


INPUTS = torch.randn(64, 30, generator=torch.Generator().manual_seed(1))
TARGETS = (INPUTS[:, 0] > 0).long()


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(8):
        optimizer.zero_grad()
        F.cross_entropy(model(INPUTS), TARGETS).backward()
        optimizer.step()


def gap(one: nn.Module, other: nn.Module) -> float:
    with torch.no_grad():
        return float((one(INPUTS) - other(INPUTS)).abs().max())


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.Adam(p, 0.01)])
def test_peft_and_attach_train_the_same_and_the_files_come_back(make, tmp_path):
    base = base_network()
    mask = shira_mask(snip(base, [(INPUTS, TARGETS)], F.cross_entropy), base, r=3)
    assert mask.counts == {"0.weight": 3 * 50, "2.weight": 3 * 32}  # the last layer has fewer than 3 · 14
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    optimizer = make(ours.parameters())
    with attach(mask, ours, optimizer, dead="frozen"):
        train(ours, optimizer)
    adapted = peft.get_peft_model(theirs, shira_config(mask, theirs))
    assert mask_of_adapter(adapted) == mask
    train(adapted, make([p for p in adapted.parameters() if p.requires_grad]))
    assert gap(adapted, ours) < 1e-6 < 1e-2 < gap(base, ours)
    for which, model in (("trained", adapted), ("exported", as_adapter(mask, copy.deepcopy(base), ours))):
        model.save_pretrained(tmp_path / which)
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / which)
        assert mask_of_adapter(loaded) == mask
        merged = loaded.merge_and_unload()
        assert gap(merged, ours) < 1e-6
        for name, weight in base.named_parameters():
            dead = ~mask[name] if name in mask else torch.ones_like(weight, dtype=torch.bool)
            assert torch.equal(merged.get_parameter(name)[dead], weight[dead])


def test_what_no_adapter_can_hold_is_refused():
    base = base_network()
    half = Mask.of({name: torch.arange(weight.numel()).view_as(weight) % 2 for name, weight in magnitude(base).items()})
    with pytest.raises(TombolaError, match=r"keeps 120 of '2\.weight'; choose them with shira_mask"):
        shira_config(half, base)
    with pytest.raises(TombolaError, match="linear layers alone"):
        shira_config(Mask.full({"0.bias": (20,)}), base)
    with pytest.raises(TombolaError, match="no SHiRA adapter 'default'"):
        mask_of_adapter(base)
    other, mask = copy.deepcopy(base), shira_mask(magnitude(base), base, r=3)
    nn.init.ones_(other[4].bias)
    with pytest.raises(TombolaError, match=r"'4\.bias' differs from the pre-trained"):
        as_adapter(mask, base, other)


def test_another_adapter_than_shira_is_none():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(base_network(), peft.LoraConfig(target_modules=["0"]))
    with pytest.raises(TombolaError, match="no SHiRA adapter"):
        mask_of_adapter(model)
