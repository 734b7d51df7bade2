"""Complex weights: ranked by their modulus, kept dead as pairs of numbers, refused by name where they have no order."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from tombola.registry import SCORES
from tombola.testing import toy_task


class Spectral(nn.Module):
    """A complex layer before a real one."""

    def __init__(self, dtype: torch.dtype = torch.complex64) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(64, 6, dtype=dtype), nn.Linear(6, 5)

    def forward(self, x):
        return self.last(self.inner(x.flatten(1).to(self.inner.weight.dtype)).abs().to(self.last.weight.dtype))


TASK = toy_task(Spectral)
MODULUS = ("magnitude", "random")


def test_magnitude_is_the_modulus():
    network = Spectral()
    scores = tb.scores.magnitude(network)["inner.weight"]
    assert torch.equal(scores, network.inner.weight.detach().abs())
    assert tb.scores.magnitude(Spectral(torch.complex128))["inner.weight"].dtype == torch.float32


@pytest.mark.parametrize("name", [name for name in SCORES.only(unit="weight") if name not in MODULUS])
def test_other_scores_name_the_complex_parameter(name):
    method = tb.Iterative(density=0.5, count=1, score=SCORES[name])
    with pytest.raises(tb.TombolaError, match=r"'inner\.weight' is complex; use magnitude"):
        tb.find(TASK, method, progress=False)
    real = replace(method, prunable=tb.Prunable(exclude=("inner.*",)))
    assert [*tb.find(TASK, real, progress=False).mask] == ["last.weight"]


@pytest.mark.parametrize(
    "method", [tb.method("gem-miner"), tb.methods.EdgePopup(weights="own"), tb.methods.ConcreteTicketSearch()]
)
def test_searches_by_trained_scores_name_it_too(method):
    with pytest.raises(tb.TombolaError, match=r"trained scores is for real weights, and 'inner\.weight' is complex"):
        tb.find(TASK, method, progress=False)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_dead_complex_weights_stay_dead(dtype, optimizer):
    network = Spectral(dtype)
    mask = tb.select(tb.scores.magnitude(network), 0.3)
    settings = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    stepping = optimizer(network.parameters(), lr=0.1, weight_decay=0.1, **settings)
    dead, start = ~mask["inner.weight"], network.inner.weight.detach().clone()
    with tb.attach(mask, network, stepping):
        for _ in range(3):
            stepping.zero_grad()
            F.cross_entropy(network(torch.randn(4, 64)), torch.randint(5, (4,))).backward()
            assert not network.inner.weight.grad[dead].any()
            stepping.step()
            state = [own for own in stepping.state[network.inner.weight].values() if own.shape == dead.shape]
            assert not any(tensor[dead].any() for tensor in (network.inner.weight, *state))
    assert (network.inner.weight[~dead] != start[~dead]).all()


def test_a_conjugated_gradient_is_zeroed_where_it_is_dead():
    weight = nn.Parameter(torch.randn(2, 3, dtype=torch.complex64))
    network = nn.ParameterDict({"weight": weight})
    mask = tb.Mask.of({"weight": torch.tensor([[True, False, True], [False, True, True]])})
    with tb.attach(mask, network):
        weight.grad = torch.randn(2, 3, dtype=torch.complex64).conj()
        gradient = weight.grad.resolve_conj().clone()
        tb.attach(mask, network).detach()
        (weight * 0).abs().sum().backward()
    assert not weight.grad.resolve_conj()[~mask["weight"]].any()
    assert torch.equal(weight.grad.resolve_conj()[mask["weight"]], gradient[mask["weight"]])


def test_a_complex_ticket_is_found_saved_and_trained(tmp_path):
    ticket = tb.find(TASK, tb.Iterative(density=0.3, count=2, rewind="3it"), progress=False)
    ticket.save(tmp_path / "ticket.safetensors")
    assert tb.Ticket.load(tmp_path / "ticket.safetensors") == ticket
    trained = tb.train(TASK, ticket).model
    assert not trained.inner.weight[~ticket.mask["inner.weight"]].any()
