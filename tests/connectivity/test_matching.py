"""Units of two networks matched: the laws, on networks of many kinds."""

import copy

import pytest
import torch
from torch import nn

import tombola as tb
from tombola import zoo
from tombola.connectivity import match
from tombola.scores import suited
from tombola.structure import symmetries_of
from tombola.structure.symmetry_trials import _shake
from tombola.testing import toy_task
from tombola.tickets import put_values, tensors_of


def task_of(model, *shape):
    inputs = torch.randn(64, *shape, generator=torch.Generator().manual_seed(0))
    data = dict.fromkeys(("train", "test"), (inputs, torch.arange(64) % 3))
    return tb.SupervisedTask(model, data, recipe=tb.Recipe(epochs=1, batch=32, precision="float32"))


class Grouped(nn.Module):
    """A group norm, a grouped and a depthwise convolution, and a flattened image."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(1, 8, 3), nn.GroupNorm(4, 8)
        self.b, self.depthwise = nn.Conv2d(8, 16, 3, groups=4), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.c, self.out = nn.Conv2d(16, 6, 1), nn.Linear(6 * 16, 3)

    def forward(self, x):
        x = self.depthwise(torch.relu(self.b(torch.relu(self.norm(self.a(x))))))
        return self.out(torch.relu(self.c(x)).flatten(1))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.layer(x).mean(1))


class Gated(nn.Module):
    """A residual stream with a gate, and a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.gate = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.up, self.norm, self.out = nn.ConvTranspose2d(6, 5, 2), nn.BatchNorm2d(5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.first(x)
        x = x + torch.relu(self.inner(x)) * torch.sigmoid(self.gate(x))
        return self.out(torch.relu(self.norm(self.up(x))).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(16, 6, 2, batch_first=True, bidirectional=True), nn.Linear(12, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0].mean(1))


def mlp():
    hidden = nn.Linear(64, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 9), nn.Tanh()
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(9, 3))


NETWORKS = {
    "MLP": (mlp, (1, 8, 8), 21),
    "grouped": (Grouped, (1, 8, 8), 30),
    "gated": (Gated, (1, 8, 8), 11),
    "attention": (Attending, (5, 16), 64),
    "recurrent": (Recurrent, (5, 16), 6),
    "residual": (zoo.model("resnet20", (1, 8, 8), 3, 0.25), (1, 8, 8), 100),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_permuted_copy_computes_the_same_and_its_permutation_is_found(name):
    build, shape, units = NETWORKS[name]
    task = task_of(build, *shape)
    model = task.build(0)
    _shake(model)
    (inputs, _), *_ = task.batches("train", 0, 0)
    symmetries = symmetries_of(model, lambda network: network(suited(inputs, network)))
    assert sum(own.units for own in symmetries.found) == units
    permuted = copy.deepcopy(model)
    put_values(permuted, symmetries.moved(tensors_of(model), symmetries.random(3)))
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), permuted.parameters(), strict=True))
    with torch.no_grad():
        one, other = (copy.deepcopy(own).double().eval()(inputs.double()) for own in (model, permuted))
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-9 * float(one.abs().max()))
    found = match(task, model, permuted)
    again = found.tensors(tensors_of(model))
    assert all(torch.equal(again[key], value) for key, value in tensors_of(permuted).items())
    assert all(torch.equal(a, b) for a, b in zip(found.network(model).parameters(), permuted.parameters(), strict=True))


def test_matching_by_weights_finds_the_permutation_and_lowers_no_likeness():
    task = task_of(mlp, 1, 8, 8)
    model, other = task.build(0), task.build(1)
    found = match(task, model, other, by="weights")
    assert all(found.likeness[name] >= found.before[name] for name in found.likeness)
    symmetries = found.symmetries
    put_values(other, symmetries.moved(tensors_of(model), symmetries.random(1)))
    again = match(task, model, other, by="weights").tensors(tensors_of(model))
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors_of(other).items())


def test_units_that_no_activation_tells_apart_stay_where_they_are():
    def dead():
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
        nn.init.zeros_(model[1].weight)
        return model

    assert match(task_of(dead, 1, 8, 8), dead(), dead()).moved == 0


def test_matching_leaves_networks_as_they_are():
    task = toy_task()
    model, other = task.build(0), task.build(1).train()
    before = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    match(task, model, other)
    assert other.training
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors_of(model).items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in other.modules())


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (1, 8, 8)),  # no hidden unit
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Softmax(-1), nn.Linear(6, 3)), (1, 8, 8)),
    ],
)
def test_a_network_that_cannot_be_matched_is_refused_in_one_sentence(build, shape):
    with pytest.raises(tb.TombolaError, match="cannot be matched"):
        match(task_of(build, *shape), build(), build())


def test_networks_of_other_layers_are_refused():
    with pytest.raises(tb.TombolaError, match=r"'1.weight' is \(12, 64\) in one and \(8, 64\) in the other"):
        match(task_of(mlp, 1, 8, 8), mlp(), nn.Sequential(nn.Flatten(), nn.Linear(64, 8)))
    with pytest.raises(tb.TombolaError, match="give 'activations' or 'weights'"):
        match(task_of(mlp, 1, 8, 8), mlp(), mlp(), by="size")


def test_a_symmetry_that_a_wrong_trace_would_give_is_not_believed():
    """Positions count here, in a way that no trace shows: the values of a buffer that no layer holds."""

    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = nn.Linear(64, 6), nn.Linear(6, 5), nn.Linear(5, 3)
            self.register_buffer("scale", torch.linspace(1, 2, 6))

        def forward(self, x):
            return self.out(torch.relu(self.b(torch.relu(self.a(x.flatten(1))) * self.scale)))

    found = match(task_of(Weighted, 1, 8, 8), Weighted(), Weighted()).symmetries
    assert [own.name for own in found.found] == ["b"]
    assert list(found.fixed) == ["a"]
