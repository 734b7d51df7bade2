"""What may lose weights: layers of every kind, what they compute their weights from, and what is left out by name."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import tombola as tb
from tombola.structure import Prunable
from tombola.structure.prunable_rule import LeftOutWarning


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj = nn.Parameter(torch.randn(2, 8, 4)), nn.Parameter(torch.randn(2, 4, 4))


class Matrix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Parameter(torch.randn(30, 8)), nn.Linear(8, 2)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (nn.LSTM(3, 4), ["weight_ih_l0", "weight_hh_l0"]),
        (nn.GRU(3, 4, bidirectional=True, bias=False), None),
        (nn.LSTM(3, 4, proj_size=2), ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"]),
        (nn.RNNCell(3, 4), ["weight_ih", "weight_hh"]),
        (nn.MultiheadAttention(4, 2), ["in_proj_weight", "out_proj.weight"]),
        (Experts(), ["gate_up_proj", "down_proj"]),
        (parametrizations.spectral_norm(nn.Linear(3, 4)), ["parametrizations.weight.original"]),
        (nn.utils.spectral_norm(nn.Linear(3, 4)), ["weight_orig"]),
        (prune.identity(nn.Linear(3, 4), "weight"), ["weight_orig"]),
        (nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 9), nn.BatchNorm1d(9)), ["1.weight"]),
    ],
    ids=lambda own: type(own).__name__,
)
def test_the_weights_of_layers_may_go(model, names):
    assert list(Prunable()(model)) == (names or [name for name, _ in model.named_parameters()])


def test_transformers_own_linear_layer_may_go():
    layers = pytest.importorskip("transformers.pytorch_utils")
    assert list(Prunable()(nn.Sequential(layers.Conv1D(3, 4)))) == ["0.weight"]


@pytest.mark.parametrize("normed", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_what_a_zero_means_nothing_in_is_left_out_and_refused_by_name(normed):
    model = nn.Sequential(normed(nn.Linear(4, 4)), nn.Linear(4, 2))
    with pytest.warns(LeftOutWarning, match=r"'0\.parametrizations\.weight\.original1?'"):
        assert list(Prunable()(model)) == ["1.weight"]
    with pytest.raises(tb.TombolaError, match=r"weight\.original1?' cannot be pruned"):
        Prunable(include=("0.*",))(model)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_torchs_older_weight_norm_is_left_out_too():
    with pytest.warns(LeftOutWarning, match="'0.weight_v'"):
        assert list(Prunable()(nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2)))) == ["1.weight"]


@pytest.mark.parametrize(
    "rule", [Prunable(include=("table",)), Prunable(include=("t*",)), Prunable(types=(Matrix,))], ids=str
)
def test_what_is_named_may_go_whatever_it_is(rule):
    assert list(rule(Matrix())) == ["table"]


def test_what_is_large_and_left_out_is_named():
    with pytest.warns(LeftOutWarning, match=r"9\d% of the network's weights cannot lose any: 'table'"):
        Prunable()(Matrix())
    with pytest.warns(LeftOutWarning, match=r"'0\.weight'"):
        Prunable()(nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Prunable(exclude=("x",))(Matrix())
        Prunable()(nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4)))


def test_a_recurrent_network_and_a_normed_one_train_as_tickets():
    torch.manual_seed(0)
    x, y = torch.randn(64, 5, 3), torch.randint(0, 2, (64,))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.LSTM(3, 8, batch_first=True), parametrizations.spectral_norm(nn.Linear(8, 2))

        def forward(self, x):
            return self.fc(self.rnn(x)[0][:, -1])

    task = tb.SupervisedTask(Net, {"train": (x, y), "test": (x, y)}, recipe=tb.Recipe(epochs=2, batch=32))
    ticket = tb.find(task, tb.OneShot(density=0.3), seed=0)
    assert set(ticket.mask) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "fc.parametrizations.weight.original"}
    model = tb.train(task, ticket).model
    dead = ~ticket.mask["fc.parametrizations.weight.original"]
    assert not model.fc.weight[dead].any()
    assert not model.rnn.weight_hh_l0[~ticket.mask["rnn.weight_hh_l0"]].any()
