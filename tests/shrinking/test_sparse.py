"""Sparse execution: the masked network's outputs, only where it pays, and refusals in plain words."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.shrinking import SparseLinear, SparsityWarning, kernels, sparse
from tombola.shrinking.sparse_linear import LayerTiming


def network() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(900, 700), nn.ReLU(), nn.Linear(700, 300), nn.ReLU(), nn.Linear(300, 5)
    )


def masked(density: float) -> tuple[nn.Module, tb.Mask]:
    model = network()
    mask = tb.select(tb.scores.random(model), density, scope="layerwise")
    with tb.attach(mask, model):
        return model.eval(), mask


@pytest.mark.filterwarnings("ignore::tombola.shrinking.SparsityWarning")
def test_outputs_are_the_masked_networks_and_the_large_layer_runs_sparse():
    model, mask = masked(0.01)
    before = copy.deepcopy(model.state_dict())
    fast = sparse(model, mask, batch=256)
    assert isinstance(fast[1], SparseLinear)
    for shape in ((256, 900), (1, 900), (3, 900)):
        x = torch.randn(shape)
        with torch.no_grad():
            assert torch.allclose(fast(x), model(x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("bias", [True, False])
def test_every_kernel_equals_the_dense_layer(kernel, bias):
    layer = nn.Linear(37, 23, bias=bias).requires_grad_(False)
    layer.weight[torch.rand(23, 37) < 0.8] = 0
    layer.weight[4] = 0
    own = SparseLinear(layer.weight, layer.bias, kernel)
    for twin in (own, copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        for shape in ((37,), (1, 37), (64, 37), (2, 3, 37)):
            x = torch.randn(shape)
            assert twin(x).shape == layer(x).shape
            assert torch.allclose(twin(x), layer(x), rtol=1e-5, atol=1e-5)
    other = SparseLinear(layer.weight * 2, layer.bias, kernel)
    other.load_state_dict(own.state_dict())
    assert torch.allclose(other(x), layer(x), rtol=1e-5, atol=1e-5)


COUNTING = """
import torch
from tombola.shrinking import SparseLinear, kernels

for threads in (1, 2, 64):
    torch.set_num_threads(threads)
    for kernel in kernels():
        SparseLinear(torch.eye(8), None, kernel)(torch.randn(4, 8))
        print(kernel, torch.get_num_threads() == threads)
"""


@pytest.mark.slow
def test_kernels_leave_pytorchs_number_of_threads_from_their_first_call_on():
    told = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [f"{kernel} True" for kernel in kernels()] * 3


def test_a_network_that_gains_nothing_comes_back_as_it_is():
    model, mask = masked(0.9)
    with pytest.warns(SparsityWarning, match="returned unchanged"):
        assert sparse(model, mask, batch=1) is model


def test_a_tenth_is_the_least_gain_that_counts():
    assert LayerTiming("a", 0.1, {"dense": 1.09, "scipy": 1.0}).best == "dense"
    worth = LayerTiming("a", 0.1, {"dense": 1.2, "scipy": 1.1, "numba": 1.0})
    assert (worth.best, worth.gain) == ("numba", 1.2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, k: sparse(m, k, batch=0), "batch is 0"),
        (lambda m, k: sparse(m.double(), k), "model.cpu().float()"),
        (lambda m, k: sparse(m, tb.Mask.full({"1.bias": m[1].bias})), "masks no linear layer"),
        (
            lambda m, k: SparseLinear(m[1].weight.detach(), None, "scipy")(torch.randn(2, 900, requires_grad=True)),
            "train",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(call, says):
    with pytest.raises(tb.TombolaError, match=re.escape(says)):
        call(*masked(0.1))
