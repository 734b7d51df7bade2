"""accelerate and Fabric wrap optimizers and networks; what is dead stays dead in their loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tombola import attach, select
from tombola.scores import magnitude

INPUTS = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
TARGETS = (INPUTS[:, 0] > 0).long()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))


def check(model: nn.Module, plain: nn.Module, optimizer, step, dead: str) -> None:
    mask = select(magnitude(model), 0.3, scope="layerwise")
    assert list(mask) == ["0.weight", "2.weight"]
    before = {name: weight.detach().clone() for name, weight in plain.named_parameters()}
    with attach(mask, model, optimizer, dead=dead):
        for _ in range(6):
            step()
            for name in mask:
                weight, gone = plain.get_parameter(name).detach(), ~mask[name]
                assert torch.equal(weight[gone], before[name][gone] if dead == "frozen" else 0 * weight[gone])
    assert all((plain.get_parameter(name) != before[name])[mask[name]].any() for name in mask)
    assert "step" not in vars(optimizer)


@pytest.mark.parametrize("dead", ["zero", "frozen"])
def test_accelerate(dead):
    accelerate = pytest.importorskip("accelerate")
    accelerator, plain = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2), network()
    model, optimizer = accelerator.prepare(plain, torch.optim.AdamW(plain.parameters(), 0.05))

    def step():
        with accelerator.accumulate(model):
            accelerator.backward(F.cross_entropy(model(INPUTS), TARGETS))
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    check(model, plain, optimizer, step, dead)


@pytest.mark.parametrize("dead", ["zero", "frozen"])
def test_fabric(dead):
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    plain = network()
    model, optimizer = fabric.setup(plain, torch.optim.SGD(plain.parameters(), 0.1, momentum=0.9, weight_decay=0.1))

    def step():
        optimizer.zero_grad()
        fabric.backward(F.cross_entropy(model(INPUTS), TARGETS))
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()

    check(model, plain, optimizer, step, dead)
