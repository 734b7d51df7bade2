"""Programs: what the kernels, numba and PyTorch make of one is the same, whatever the layers, samples and threads."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from tombola import zoo
from tombola.sparse_inference import SparseProgram, execution, numba_kernels
from tombola.sparse_inference.program import TILES
from tombola.sparse_inference.program_check import check_program
from tombola.sparse_inference.segments import segments_of, traced


class Everything(nn.Module):
    """Each kind of step, with sums and ReLUs that can and cannot become part of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 5, 2, 2)
        self.norm = nn.BatchNorm2d(6)
        self.same = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.pointwise = nn.Conv2d(6, 9, 1)
        self.uneven = nn.Conv2d(9, 5, (3, 2), stride=3)
        self.later = nn.BatchNorm2d(5)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(5 * 2 * 3, 7)
        self.end = nn.BatchNorm1d(7)

    def forward(self, x):
        x = self.norm(self.first(x))
        beside = F.relu(x)
        x = self.same(beside) + x
        x = F.max_pool2d(x.relu() + x, 3, 1, padding=1)
        x = self.pointwise(x)
        pooled = F.avg_pool2d(x, 1)
        x = self.later(F.relu(self.uneven(pooled + x)))
        return self.end(self.head(self.drop(x).view(x.size(0), -1)))


def sparse_weights(network: nn.Module, density: float = 0.3) -> nn.Module:
    """The network in evaluation mode with random statistics and a random mask, of which one layer loses a channel."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    mask = tb.select(tb.scores.random(network), density, scope="layerwise", floor=1)
    tb.attach(mask, network).detach()
    next(iter(network.parameters())).data[1] = 0
    return network.eval()


def program_of(network: nn.Module, x: torch.Tensor, tile: int = 64) -> SparseProgram:
    graph = traced(network, x)
    assert graph is not None
    layers = [name for name, own in network.named_modules() if isinstance(own, nn.Linear | nn.Conv2d)]
    (own,) = segments_of(graph, layers)
    with torch.no_grad():
        outputs = network(x).shape[1:]
    return SparseProgram(own.program, tuple(x.shape[1:]), tuple(outputs), tile).eval()


NETWORKS = {
    "everything": (Everything, (2, 13, 15)),
    "lenet5": (zoo.model("lenet5", (1, 12, 12), 4, 0.5), (1, 12, 12)),
    "resnet20": (zoo.model("resnet20", (1, 12, 12), 4, 0.25), (1, 12, 12)),
    "projection": (zoo.model("resnet20-projection", (1, 10, 10), 4, 0.25), (1, 10, 10)),
    "preresnet20": (zoo.model("preresnet20", (1, 12, 12), 4, 0.25), (1, 12, 12)),
    "vgg11": (zoo.model("vgg11", (1, 32, 32), 4, 0.1), (1, 32, 32)),
    "features": (lambda: nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 3)), (30,)),
}


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_program_computes_what_the_network_does(name):
    make, shape = NETWORKS[name]
    network = sparse_weights(make())
    program = program_of(network, torch.randn(4, *shape))
    for samples in (1, 3, 17, 70):
        x = torch.randn(samples, *shape)
        expected = network(x)
        found = [program.dense(x)]
        for tile in TILES:
            program.tile = tile
            found.append(program(x))
        for own in found:
            assert torch.allclose(own, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_numba_computes_the_same(name):
    make, shape = NETWORKS[name]
    network, x = sparse_weights(make()), torch.randn(3, *shape)
    found = numba_kernels.run(program_of(network, x).program, x.flatten(1).numpy())
    assert torch.allclose(torch.from_numpy(found).reshape(network(x).shape), network(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_threads_share_the_samples(monkeypatch):
    monkeypatch.setattr(execution, "WORTH_A_THREAD", 1000)
    network = sparse_weights(nn.Sequential(nn.Linear(900, 700), nn.ReLU(), nn.Linear(700, 5)), 0.5)
    x = torch.randn(70, 900)
    program, before = program_of(network, x, tile=8), torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 64):
            torch.set_num_threads(threads)
            assert torch.allclose(program(x), network(x), rtol=1e-4, atol=1e-5)
    finally:
        torch.set_num_threads(before)


def test_values_that_are_no_numbers_stay_so():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(2)).eval()
    x = torch.ones(2, 1, 4, 4)
    x[1, 0, 0, 0], x[1, 0, 3, 3] = float("nan"), float("inf")
    with torch.no_grad():
        assert torch.equal(program_of(network, x)(x).isnan(), network(x).isnan())


def test_a_copy_and_a_pickle_compute_the_same():
    x = torch.randn(5, 30)
    program = program_of(sparse_weights(NETWORKS["features"][0]()), x)
    expected = program(x)
    for twin in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        assert torch.equal(twin(x), expected)
    assert program(torch.randn(0, 30)).shape == (0, 3)
    assert program(torch.randn(2, 3, 30)).shape == (2, 3, 3)


def test_inputs_that_nothing_is_made_of_are_not_read():
    network = sparse_weights(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), 1.0)
    network[1].weight.data[:, [0, 5]] = 0
    x = torch.randn(2, 3, 2, 2)
    program = program_of(network, x)
    assert list(program.program.read) == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    x[:, 0, 0, 0] = float("nan")
    assert not program(x).isnan().any()


class Reused(nn.Module):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.layer, self.inplace = nn.Linear(4, 4), inplace

    def forward(self, x):
        x = self.layer(x)
        y = F.relu(x, inplace=self.inplace)
        return x + y


class Always(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return F.dropout(self.layer(x), 0.5)


@pytest.mark.parametrize("network", [Reused(inplace=True), Always()])
def test_what_the_kernels_would_compute_otherwise_is_left_to_pytorch(network):
    graph = traced(network, torch.randn(2, 4))
    assert graph is not None
    assert [own.layers for own in segments_of(graph, ["layer"])] == [("layer",)]
    (own,) = segments_of(graph, ["layer"])
    assert len(own.nodes) == 1


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [("places", 0, 99), ("places", 0, -1), ("starts", 1, 10**6), ("starts", 0, 1), ("values", 0, np.nan)],
)
def test_numbers_that_do_not_fit_are_refused_before_a_kernel_follows_them(name, index, value):
    program = program_of(sparse_weights(NETWORKS["features"][0]()), torch.randn(2, 30)).program
    getattr(program.steps[0].kept, name)[index] = value
    with pytest.raises(ValueError, match=r"step 0 \(convolve\) has"):
        check_program(program)
