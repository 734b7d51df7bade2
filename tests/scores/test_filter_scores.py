"""Scores of filters by what they give after the norm that follows them and a ReLU."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tombola as tb
from tombola import TombolaError
from tombola.scores import ExpectedActivation, FeatureRank, ProjectedImportance
from tombola.scores.feature_scores import importances
from tombola.structure import Prunable
from tombola.testing import check_score, toy_network, toy_task

SCORES = (ExpectedActivation(of="filter"), FeatureRank(of="filter"), ProjectedImportance(of="filter"))


class Parts(nn.Module):
    """A convolution with a norm, one of which another module sees the output, a transposed one and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 8, 3, groups=4)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        self.late = nn.BatchNorm2d(6)
        self.tokens, self.norm = nn.Linear(6, 3, bias=False), nn.LayerNorm(3)
        self.head = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x)).relu_()
        x = self.late(self.up(self.grouped(x)) * 2)
        return self.head(self.norm(self.tokens(x.flatten(2).transpose(1, 2))).mean(1))


def parts() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = Parts()
    with torch.no_grad():
        for own in model.parameters():
            own.add_(0.3 * torch.randn_like(own))
    return model, [(torch.randn(12, 1, 6, 6), torch.arange(12) % 5) for _ in range(2)]


def seen(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """What stands where each layer's filters are measured, channels second."""
    own: dict[str, Tensor] = OrderedDict()
    whole = copy.deepcopy(model).eval()
    for name, at in (("conv", "bn"), ("grouped", "grouped"), ("up", "up"), ("tokens", "norm"), ("head", "head")):
        whole.get_submodule(at).register_forward_hook(
            lambda _, __, output, name=name: own.__setitem__(name, output.detach().clone())
        )
    whole(inputs)
    return {name: (each.movedim(-1, 1) if name in ("tokens", "head") else each).relu() for name, each in own.items()}


@pytest.mark.parametrize("score", SCORES, ids=lambda own: own.name)
def test_a_filter_is_worth_what_its_features_say(score):
    model, batches = parts()
    found = score(model, iter(batches))
    batches = batches[: score.batches]
    features = seen(model, torch.cat([x for x, _ in batches]))
    classes = F.one_hot(torch.cat([y for _, y in batches])).double()
    for name, own in features.items():
        if isinstance(score, FeatureRank) and own.ndim != 4:
            assert f"{name}.weight" not in found
            continue
        if isinstance(score, ExpectedActivation):
            expected = own.transpose(0, 1).flatten(1).mean(1)
        elif isinstance(score, FeatureRank):
            expected = torch.linalg.matrix_rank(own).float().mean(0) / max(own.shape[2:])
        else:
            fields = F.avg_pool2d(own, min(8, own.shape[2])) if own.ndim == 4 else own
            flat = fields.reshape(len(own), -1)
            vip = torch.zeros(flat.shape[1], dtype=torch.float64)
            vip[flat.std(0) > 0] = importances(flat, classes, 2)
            expected = vip.reshape(own.shape[1], -1).mean(1)
        assert found[f"{name}.weight"].shape == (own.shape[1],)
        assert torch.allclose(found[f"{name}.weight"].double(), expected.double(), rtol=1e-4)


@pytest.mark.parametrize("score", [SCORES[0], SCORES[2]], ids=lambda own: own.name)
def test_scores_of_filters_keep_the_laws(score):
    check_score(score)


def test_ranks_leave_layers_without_maps_out_and_touch_nothing():
    task, model = toy_task(), toy_network()
    before, batches = copy.deepcopy(model.state_dict()), list(task.batches("train", 0, 0))
    found = SCORES[1](model, batches)
    assert found.keys() == {"0.weight", "3.weight"}
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    assert not any(own._forward_hooks or own._forward_pre_hooks for own in model.modules())
    assert SCORES[1](model, batches, prunable=Prunable(exclude=("0.*",))).keys() == {"3.weight"}


def test_dead_filters_are_worth_nothing():
    model, batches = (
        nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU()),
        [(torch.randn(6, 1, 6, 6), torch.arange(6))],
    )
    alive = torch.ones(4, 1, 3, 3, dtype=torch.bool)
    alive[1] = False
    for score in SCORES:
        worths = score(model, batches, mask=tb.Mask.of({"0.weight": alive}))["0.weight"]
        assert worths[1] == 0
        assert (worths[[0, 2, 3]] > 0).all()


@pytest.mark.filterwarnings("ignore::tombola.tickets.TieWarning")
@pytest.mark.parametrize("score", SCORES, ids=lambda own: own.name)
def test_channels_are_chosen_by_what_their_filters_give(score):
    task = toy_task()
    ticket = tb.find(
        task, tb.OneShot(density=0.5, score=score, granularity=tb.structure.SeparateChannels(), floor=1), progress=False
    )
    kept = 10 - sum(map(len, ticket.removed.values()))
    assert kept == 5
    worths = score(task.build(0), task.batches("train", 0, 0))
    stays, goes = [], []
    for name in ("0", "3"):
        for place, worth in enumerate(worths[f"{name}.weight"]):
            (goes if place in ticket.removed.get(name, ()) else stays).append(float(worth))
    assert max(goes) <= min(stays)
    assert tb.train(task, ticket).plan is not None


@pytest.mark.filterwarnings("ignore::tombola.tickets.TieWarning")
@pytest.mark.parametrize("reduction", ["sum", "mean", "l2"])
@pytest.mark.parametrize("score", SCORES, ids=lambda own: own.name)
def test_however_worths_are_joined_the_order_of_layers_is_that_of_their_filters(score, reduction):
    """Of channels of one filter each, the worth is the filter's, whatever the layers' sizes."""
    task = toy_task()
    model = task.build(0)
    batches = list(task.batches("train", 0, 0))
    worths = score(model, batches)
    units = tb.structure.SeparateChannels(reduction).units(model, lambda own: own(batches[0][0]))
    for density in (0.7, 0.9):
        kept = units.choose(worths, density, scope="global", within=None, floor=0)
        stays, goes = [], []
        for name in ("0", "3"):
            for worth, own in zip(worths[f"{name}.weight"], kept[name], strict=True):
                (stays if own else goes).append(float(worth))
        assert max(goes) <= min(stays)


def test_worths_of_units_do_not_pass_as_those_of_weights():
    for granularity in (tb.structure.Weights(), tb.structure.NM(2, 4)):
        with pytest.raises(TombolaError, match="whole filters and neurons"):
            tb.OneShot(0.5, score=SCORES[0], granularity=granularity)
    with pytest.raises(TombolaError, match="ranks residual blocks, and does not go with channels; use tb"):
        tb.OneShot(0.5, score=ExpectedActivation(), granularity=tb.Channels())


class Windows(nn.Module):
    """Cuts each sample in two, which a layer sees as samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(-1, 32)).reshape(len(x), 2, 5).mean(1)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: SCORES[1](nn.Linear(3, 2), [(torch.randn(4, 3), 0)]), "no layer gives feature maps"),
        (lambda: SCORES[0](nn.Linear(3, 2)), "needs data and got no batch"),
        (
            lambda: SCORES[2](Windows(), [(torch.randn(4, 1, 8, 8), torch.arange(4))]),
            "8 rows of features for 4 samples",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(act, says):
    with pytest.raises(TombolaError, match=says):
        act()
