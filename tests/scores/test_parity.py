"""Scores at initialisation as their papers mean them, by finite differences, invariants and counts."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import tombola as tb
from networks import short_resnet
from tombola import TombolaError, zoo
from tombola.scores import GraspFirstOrder, as_summed
from tombola.scores.block_scores import block_sums
from tombola.scores.kinds import Data
from tombola.structure import Blocks, Channels, Weights, prunable
from tombola.testing import toy_task
from tombola.tickets import ErdosRenyi, Mask, SmartRatio, select

BATCH = torch.randn(16, 6, dtype=torch.float64), torch.arange(16) % 3
IMAGES = torch.randn(24, 1, 8, 8, dtype=torch.float64), torch.arange(24) % 5


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def half(model: nn.Module) -> Mask:
    generator = torch.Generator().manual_seed(2)
    return Mask.of({name: torch.rand(w.shape, generator=generator) < 0.5 for name, w in prunable(model).items()})


# GraSP


def gradient_norm(model, weights, over) -> float:
    """Half of the squared norm of the gradient, over some of the weights."""
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    value = F.cross_entropy(functional_call(model, leaves, (BATCH[0],)) / 200, BATCH[1])
    gradients = dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))
    return 0.5 * sum(float(gradients[name][over[name]].square().sum()) for name in over)


@pytest.mark.parametrize("regrow", [False, True])
def test_masked_grasp_is_the_slope_of_the_norm_over_what_can_train(regrow):
    model = mlp()
    mask = half(model)
    scores = tb.scores.grasp(model, [BATCH], F.cross_entropy, mask=mask, regrow=regrow, dtype=torch.float64)
    dense = {name: weight.detach().clone() for name, weight in prunable(model).items()}
    masked = {name: weight * mask[name] for name, weight in dense.items()}
    over = {name: torch.ones_like(mask[name]) if regrow else mask[name] for name in mask}
    for name in masked:
        for index in np.ndindex(*masked[name].shape):
            sides = []
            for step in (1e-4, -1e-4):
                moved = {n: w.clone() for n, w in masked.items()}
                moved[name][index] += step
                sides.append(gradient_norm(model, moved, over))
            slope = (sides[0] - sides[1]) / 2e-4
            value = (dense if regrow else masked)[name][index]
            assert float(scores[name][index]) == pytest.approx(float(value) * slope, rel=1e-4, abs=1e-13)


def test_grasp_ignores_gradients_of_weights_that_are_gone():
    """What a removed weight's gradient would be has no part in the scores of the others."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False)).double()
    model[0].weight.data = torch.tensor([[0.5, 0.3]], dtype=torch.float64)
    mask = Mask.of({"0.weight": torch.tensor([[True, False]])})
    scores = [
        tb.scores.grasp(model, [(x, torch.ones(2, 1).double())], F.mse_loss, mask=mask, dtype=torch.float64)
        for x in (torch.tensor([[1.0, s], [2.0, -s / 2]], dtype=torch.float64) for s in (0.1, 50.0))
    ]
    torch.testing.assert_close(scores[0]["0.weight"], scores[1]["0.weight"])


# Units behind a norm


def conv_norm(epsilon: float = 1e-5, norm=nn.BatchNorm2d) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 6, 3, bias=False), norm(6), nn.ReLU(), nn.Conv2d(6, 8, 3, bias=False), norm(8)
    model = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)).double()
    for module in model:
        if hasattr(module, "eps"):
            module.eps = epsilon
    return model


def sums(score, model, **view) -> torch.Tensor:
    scores = score(model, [IMAGES], F.cross_entropy, dtype=torch.float64, **view)
    return scores["3.weight"].flatten(1).sum(1)


def test_the_signed_sum_of_a_filter_in_train_mode_is_epsilon_and_in_evaluation_mode_it_is_a_score():
    small, large = (sums(GraspFirstOrder(), conv_norm(epsilon)) for epsilon in (1e-6, 1e-5))
    torch.testing.assert_close(large, 10 * small, rtol=1e-3, atol=1e-3 * float(large.abs().max()))
    ratio = sums(tb.scores.snip, conv_norm())
    assert (large.abs() < 1e-3 * ratio).all()
    evaluated = [sums(GraspFirstOrder(batch_norm="eval"), conv_norm(epsilon)) for epsilon in (1e-6, 1e-5)]
    torch.testing.assert_close(*evaluated, rtol=1e-3, atol=1e-9)
    assert evaluated[0].abs().max() > 1e-2 * sums(tb.scores.Snip(batch_norm="eval"), conv_norm()).max()


def test_the_sum_of_grasp_over_a_filter_behind_a_norm_is_the_negative_of_its_squared_gradients():
    model = conv_norm(1e-14)
    twin = copy.deepcopy(model).train()
    (gradient,) = torch.autograd.grad(F.cross_entropy(twin(IMAGES[0]) / 200, IMAGES[1]), twin[3].weight)
    torch.testing.assert_close(
        sums(tb.scores.grasp, model), -gradient.flatten(1).square().sum(1), rtol=1e-6, atol=1e-18
    )


@pytest.mark.parametrize("granularity", [Channels(), Blocks(1)])
def test_methods_take_signed_scores_of_units_in_evaluation_mode(granularity):
    task = toy_task(short_resnet) if isinstance(granularity, Blocks) else toy_task()
    density = 0.5
    found = tb.find(task, tb.OneShot(density, GraspFirstOrder(), granularity), seed=0)
    evaluated = tb.find(task, tb.OneShot(density, GraspFirstOrder(batch_norm="eval"), granularity), seed=0)
    assert found.removed == evaluated.removed
    assert as_summed(GraspFirstOrder(), Weights(), conv_norm(), None) == GraspFirstOrder()


@pytest.mark.parametrize(
    ("score", "norm"),
    [
        (tb.scores.Movement(), nn.BatchNorm2d),
        (GraspFirstOrder(), lambda n: nn.GroupNorm(n, n)),
        (GraspFirstOrder(), nn.InstanceNorm2d),
        (GraspFirstOrder(), lambda n: nn.BatchNorm2d(n, track_running_stats=False)),
    ],
)
def test_where_no_mode_helps_the_sum_is_refused_before_anything_trains(score, norm):
    task = toy_task(lambda: conv_norm(norm=norm).float(), epochs=1)
    with pytest.raises(
        TombolaError, match=r"sum over the weights of a channel is 0 behind a norm, as behind '0\.weight'"
    ):
        tb.find(task, tb.Iterative(0.5, score, Channels(), count=1))
    method = tb.Iterative(0.5, score, count=1) if isinstance(score, tb.scores.Movement) else tb.OneShot(0.5, score)
    tb.find(task, method)  # single weights cancel nothing


@dataclass(frozen=True)
class Mine(tb.scores.GradientScore):
    """A user's own signed score."""

    name = "mine"
    cancels = True

    def worth(self, weight, gradient):
        return 3 * weight * gradient


def test_a_users_own_score_says_that_it_cancels_and_layer_norm_spares_single_filters():
    probe = lambda model: model(IMAGES[0])  # noqa: E731
    assert as_summed(Mine(), Channels(), conv_norm(), probe) == Mine(batch_norm="eval")
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.LayerNorm(6), nn.Linear(6, 5)).double()
    assert as_summed(Mine(), Channels(), linear, probe) == Mine()
    assert as_summed(tb.evidence.Inverted(Mine()), Channels(), conv_norm(), probe).score == Mine(batch_norm="eval")


# Partial least squares of blocks


def test_the_features_of_a_block_are_what_its_addition_gives():
    model = zoo.model("resnet20", (1, 8, 8), 5, width=0.25)().double().eval()
    seen: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if name.count(".") == 1 and name.startswith("layer"):
            module.register_forward_hook(lambda m, args, out, name=name: seen.update({name: (m, args[0], out)}))
    found = block_sums(model, Data("pls", [IMAGES], None, {"dtype": torch.float64}))
    for name, (block, _, output) in list(seen.items()):
        assert (found[name] < 0).any()
        torch.testing.assert_close(found[name].relu(), output)
        assert block is not None


def test_inplace_and_module_relus_are_looked_behind_and_other_ends_stay():
    class Block(nn.Module):
        branch = ("conv",)

        def __init__(self, end) -> None:
            super().__init__()
            self.conv, self.end = nn.Conv2d(2, 2, 3, padding=1), end

        def forward(self, x):
            return self.end(x + self.conv(x))

    torch.manual_seed(0)
    ends = {"inplace": nn.ReLU(inplace=True), "plain": torch.relu, "method": lambda x: x.relu_(), "none": nn.Identity()}
    for name, end in ends.items():
        model = nn.Sequential(nn.Conv2d(1, 2, 3), Block(end), nn.Flatten(), nn.Linear(72, 3)).double()
        inputs = torch.randn(3, 1, 8, 8).double()
        hidden = model[0](inputs)
        expected = hidden + model[1].conv(hidden)
        sums = block_sums(model, Data("pls", [(inputs, None)], None, {"dtype": torch.float64}))
        torch.testing.assert_close(sums["1"], expected.detach(), msg=name)


# Counts of the authors' codes


def test_force_goes_on_while_any_weight_has_a_gradient():
    """A layer that empties gets all weights back: the others have no gradient then, and it has."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 3))
    empty = Mask.of({"0.weight": torch.ones(30, 6) > 0, "2.weight": torch.zeros(3, 30) > 0})
    batch = (torch.randn(16, 6), torch.arange(16) % 3)
    scores = tb.scores.snip(model, [batch], F.cross_entropy, mask=empty, regrow=True)
    assert not scores["0.weight"].any()
    assert scores["2.weight"].any()
    both = Mask.of({"0.weight": torch.zeros(30, 6) > 0, "2.weight": torch.zeros(3, 30) > 0})
    for module in model:
        if isinstance(module, nn.Linear):
            module.bias.data.zero_()
    with pytest.raises(TombolaError, match=r"'0\.weight', '2\.weight' is 0 throughout"):
        tb.scores.snip(model, [batch], F.cross_entropy, mask=both, regrow=True)


@pytest.mark.parametrize(("density", "size"), [(0.05, 1003), (0.0133, 266_610), (0.1, 77)])
def test_the_authors_counts_can_be_asked_for(density, size):
    """As the pages say: int(d · n) of FORCE and iterative SNIP, n − int((1 − d) · n) of SynFlow."""
    scores = {"a": torch.rand(size)}
    assert select(scores, int(density * size) / size).total_kept == int(density * size)
    theirs = size - int((1.0 - density) * size)
    assert select(scores, theirs / size).total_kept == theirs


# Edge-popup


@pytest.mark.parametrize("scope", ["layerwise", "global"])
@pytest.mark.parametrize("floor", [0, 1, 3])
@pytest.mark.parametrize("density", [0.012, 0.03, 0.11, 0.4])
def test_edge_popup_searches_with_the_counts_of_its_ticket(scope, floor, density):
    from tombola.methods.masked_model import TopShare

    generator = torch.Generator().manual_seed(1)
    sizes = {"a": (45, 31), "b": (7, 3), "c": (11, 23), "d": (5, 5), "e": (13, 7)}
    scores = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    scores["b"] *= 1e-3  # a layer that a global ranking empties
    expected = select({name: s.abs() for name, s in scores.items()}, density, scope=scope, floor=floor)
    assert TopShare(density, scope, floor).mask(scores) == expected


# Settling


def test_a_distance_of_exactly_epsilon_is_too_large_or_small_enough():
    from types import SimpleNamespace

    from tombola.methods.mask_convergence import MaskConvergence

    for strict, settled in ((True, False), (False, True)):
        settings = tb.EarlyBird(epsilon=0.25, strict=strict)
        watched = SimpleNamespace(settings=settings, full=True, distances=[0.125, 0.25])
        assert MaskConvergence.settled.fget(watched) is settled
    assert tb.training.identity(tb.EarlyBird()) == {
        key: value for key, value in tb.training.identity(tb.EarlyBird(strict=True)).items() if key != "strict"
    }


# Scopes, biases, densities

CONV = {"conv": torch.rand(16, 8, 3, 3), "wide": torch.rand(64, 16, 3, 3), "fc": torch.rand(10, 64)}


def test_er_leaves_kernel_sides_out():
    counts = select(CONV, 0.1, scope="er").counts
    shares = {name: sum(w.shape[:2]) / (w.shape[0] * w.shape[1]) for name, w in CONV.items()}
    densities = {name: counts[name] / w.numel() for name, w in CONV.items()}
    for name in ("conv", "fc"):
        assert densities[name] / densities["wide"] == pytest.approx(shares[name] / shares["wide"], rel=0.02)
    kernel = select(CONV, 0.1, scope="erk").counts
    assert kernel == select(CONV, 0.1, scope=ErdosRenyi()).counts != counts


def test_without_redistribution_the_surplus_of_a_full_layer_is_lost():
    scope = ErdosRenyi(redistribute=False)
    kept = select(CONV, 0.4, scope=scope)
    size = sum(w.numel() for w in CONV.values())
    weight = {name: sum(w.shape) for name, w in CONV.items()}
    ideal = {name: 0.4 * size * weight[name] / sum(weight.values()) for name in CONV}
    assert any(ideal[name] > CONV[name].numel() for name in CONV)
    for name, count in kept.counts.items():
        assert count == pytest.approx(min(ideal[name], CONV[name].numel()), abs=1)
    assert kept.density < 0.4
    assert tb.OneShot(0.4, tb.scores.random, scope=scope).density_kind == "bound"
    assert tb.OneShot(0.4, tb.scores.random, scope="erk").density_kind == "exact"


def test_the_classifiers_share_is_a_setting_and_units_refuse_all_rules():
    counts = [select(CONV, 0.1, scope=SmartRatio(classifier=c)).counts for c in (0.3, 0.1)]
    assert [own["fc"] for own in counts] == [192, 64]
    assert sum(counts[0].values()) == sum(counts[1].values())
    with pytest.raises(TombolaError, match="density is 0"):
        SmartRatio(classifier=0.0)
    for scope in ("er", "smart-ratio-vgg", ErdosRenyi(), SmartRatio()):
        with pytest.raises(TombolaError, match="shares weights among layers, not channels"):
            tb.Channels().check(0.5, scope)


def test_biases_may_lose_numbers_and_snip_gives_those_of_0_nothing():
    model = mlp()
    names = tb.Prunable(biases=True)(model)
    assert list(names) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    scores = tb.scores.snip(model, [BATCH], F.cross_entropy, prunable=tb.Prunable(biases=True))
    gradients = torch.autograd.grad(F.cross_entropy(model(BATCH[0]), BATCH[1]), list(names.values()))
    for (name, parameter), gradient in zip(names.items(), gradients, strict=True):
        torch.testing.assert_close(scores[name].double(), (parameter * gradient).abs().detach(), rtol=1e-4, atol=1e-9)
    ticket = tb.find(toy_task(), tb.OneShot(0.3, prunable=tb.Prunable(biases=True)))
    assert "0.bias" in ticket.mask
    trained = tb.train(toy_task(), ticket).model
    assert not dict(trained.named_parameters())["0.bias"][~ticket.mask["0.bias"]].any()
    assert "biases" not in tb.training.identity(tb.Prunable())


def test_the_density_of_the_whole_network_counts_what_was_left_out():
    task = toy_task()
    method = tb.OneShot(0.1, prunable=tb.Prunable(exclude=("8.*",)))
    study = tb.compare(task, [method], seeds=1, controls=())
    result = next(own for own in study.results if own.method)
    sizes = {name: p.numel() for name, p in task.build(0).named_parameters()}
    pruned = sizes["0.weight"] + sizes["3.weight"]
    total = sum(sizes.values())
    assert result.weight_density == pytest.approx(round(0.1 * pruned) / pruned)
    assert result.network_density == pytest.approx((total - pruned + round(0.1 * pruned)) / total)


def test_an_early_record_of_grasp_counts_unless_it_scored_what_was_left():
    from tombola.studies.legacy import upgraded_run

    versions = []
    for subject in (
        {"type": "OneShot", "score": {"type": "Grasp"}},
        {"type": "OneShot", "score": {"type": "Grasp"}, "rounds": 10},
        {"type": "Iterative", "score": {"type": "Grasp"}},
        {"type": "OneShot", "score": {"type": "Snip"}, "rounds": 10},
    ):
        versions.append(upgraded_run({"recipe": {}, "subject": subject})["subject"]["score"]["is"])
    assert versions == ["grasp@2", "grasp@1", "grasp@1", "snip@1"]
