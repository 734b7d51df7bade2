"""Greedy forward selection of channels: what is picked, where factors go, when it ends, and what it leaves."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from tombola import TombolaError, zoo
from tombola.evidence.arms import Against
from tombola.evidence.controls import control
from tombola.methods import SearchWarning
from tombola.methods.channel_imitation import gram, imitation_weights
from tombola.methods.greedy_search import Goal, first, mean_metric, select_channels
from tombola.methods.prefix_cache import PrefixCache
from tombola.scores import forward
from tombola.structure import SeparateChannels, fold, silenced_sites, sites_of
from tombola.testing import check_method, toy_network, toy_task
from tombola.tickets import Mask, attach, tensors_of
from tombola.training import Run, Until, accuracy, half_squared_error, mixed

SIZES = {"0": 4, "3": 6}


def lively(model: nn.Module) -> nn.Module:
    """The model with norms whose statistics, scales and shifts all differ."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model


@torch.no_grad()
def scaled_toy(model: nn.Module, inputs, first_layer=None, second=None):
    """The toy network written out, with what each convolution feeds to the next layer multiplied."""
    ones = torch.ones(6, dtype=inputs.dtype)
    features = model[2](model[1](model[0](inputs))) * (ones[:4] if first_layer is None else first_layer)[:, None, None]
    features = model[5](model[4](model[3](features))) * (ones if second is None else second)[:, None, None]
    return model[8](features.flatten(1))


def by_hand(loss_of, size: int, picks: int, repeat: bool) -> list[torch.Tensor]:
    """The factors after each pick, from the definition: the pick is the unit whose joining leaves the least loss."""
    chosen: list[int] = []
    steps = []
    for number in range(1, picks + 1):
        losses = {}
        for unit in range(size):
            if repeat or unit not in chosen:
                counts = torch.bincount(torch.tensor([*chosen, unit]), minlength=size)
                losses[unit] = loss_of(size * counts / number)
        chosen.append(min(losses, key=losses.get))
        steps.append(size * torch.bincount(torch.tensor(chosen), minlength=size) / number)
    return steps


def selecting(model, layer, batches, **settings):
    units = SeparateChannels().units(model, lambda own: own(batches[0][0].to(next(own.parameters()).device)))
    sites = sites_of(units.wiring, model)[layer]
    settings = {"repeat": True, "candidates": None, "goal": None, "loss": F.cross_entropy} | settings

    def draws():
        while True:
            yield batches

    with PrefixCache(model, sites, forward).ready() as network:
        return select_channels(
            network, draws(), SIZES[layer], settings.pop("picks"), generator=torch.Generator(), **settings
        )


def some_batches(dtype=torch.float32):
    inputs, targets = toy_task().data["train"]
    return [(inputs[:40].to(dtype), targets[:40]), (inputs[40:64].to(dtype), targets[40:64])]


# What is picked


@pytest.mark.parametrize("loss", [F.cross_entropy, half_squared_error])
@pytest.mark.parametrize("repeat", [True, False])
@pytest.mark.parametrize("layer", ["0", "3"])
def test_picks_are_those_of_the_definition(layer, repeat, loss):
    model, batches = lively(toy_network()).double().eval(), some_batches(torch.float64)
    inputs, targets = (torch.cat(own) for own in zip(*batches, strict=True))
    place = "first_layer" if layer == "0" else "second"
    expected = by_hand(
        lambda factors: float(loss(scaled_toy(model, inputs, **{place: factors}), targets)), SIZES[layer], 4, repeat
    )
    for picks in (1, 2, 4):
        found = selecting(model, layer, batches, picks=picks, repeat=repeat, loss=loss)
        assert torch.allclose(found.factors, expected[picks - 1].double())
        value = loss(scaled_toy(model, inputs, **{place: found.factors}), targets)
        assert found.loss == pytest.approx(float(value))


def test_without_repetition_all_kept_channels_have_the_factor_of_the_public_code():
    found = selecting(lively(toy_network()), "3", some_batches(), picks=4, repeat=False)
    assert sorted(found.factors.tolist()) == pytest.approx([0, 0, 6 / 4, 6 / 4, 6 / 4, 6 / 4])


def test_repetition_weighs_a_channel_by_how_often_it_was_picked():
    torch.manual_seed(3)
    found = selecting(lively(toy_network()), "3", some_batches(), picks=8, repeat=True)
    assert torch.allclose((found.factors * 8 / 6).round(), found.factors * 8 / 6)
    assert found.factors.sum() == pytest.approx(6)
    assert found.factors.max() > 6 / 8


def test_a_layer_ends_where_samples_and_convergence_set_are_near_enough():
    task, batches = toy_task(), some_batches()
    model = lively(toy_network())
    Run(0).stage("some", task, model)
    model.eval()
    inputs, targets = (torch.cat(own) for own in zip(*batches, strict=True))
    wanted = tuple(first(task.batches("train", 5, 0), 90))

    def metric(factors, own):
        total = sum(float(accuracy(scaled_toy(model, x, second=factors), y)) * len(y) for x, y in own)
        return total / sum(len(y) for _, y in own)

    steps = by_hand(
        lambda f: float(F.cross_entropy(scaled_toy(model, inputs, second=f), targets)), SIZES["3"], 6, repeat=False
    )
    whole = metric(steps[3], wanted) / 0.98
    goal = Goal(whole, 0.02, wanted, accuracy)
    met = [metric(own, batches) >= 0.95 * whole and metric(own, wanted) >= 0.98 * whole for own in steps]
    ends = met.index(True)
    assert 0 < ends < 5
    found = selecting(model, "3", batches, picks=6, repeat=False, goal=goal)
    assert found.enough
    assert torch.allclose(found.factors, steps[ends].double())
    assert not selecting(model, "3", batches, picks=ends, repeat=False, goal=goal).enough


def test_a_tolerance_larger_than_the_gate_is_looked_at_from_there():
    goals = [Goal(0.9, tolerance, (), accuracy) for tolerance in (0.02, 0.2)]
    assert [[goal.near(metric) for metric in (0.86, 0.85, 0.73, 0.71)] for goal in goals] == [
        [True, False, False, False],
        [True, True, True, False],
    ]
    assert Goal(-1.0, 0.1, (), accuracy).near(-1.1)
    assert not Goal(-1.0, 0.1, (), accuracy).near(-1.2)


def test_candidates_are_tried_a_few_at_a_time_and_never_one_twice_without_repetition():
    found = selecting(lively(toy_network()), "3", some_batches(), picks=6, repeat=False, candidates=1)
    assert torch.allclose(found.factors, torch.ones(6, dtype=torch.float64))


# A whole search, against the same by hand


@pytest.mark.parametrize("repeat", [True, False])
def test_a_search_comes_to_what_the_definition_gives_layer_by_layer(repeat):
    task = toy_task()
    method = tb.methods.GreedyChannels(0.5, repeat=repeat, samples=None, pretrain="1ep", fine_tune=3)
    ticket = tb.find(task, method)
    model = task.build(0)
    Run(0).stage("pretrain", task, model, observers=[Until(1)])
    model.eval()
    inputs, targets = (torch.cat(own) for own in zip(*task.batches("train", mixed(0, 3, 0), 0), strict=True))

    def loss(first_layer, second=None):
        return float(F.cross_entropy(scaled_toy(model, inputs, first_layer, second), targets))

    one = by_hand(loss, 4, 2, repeat)[-1]
    two = by_hand(partial(loss, one), 6, 3, repeat)[-1]
    found = task.build(0)
    ticket.put_into(found)
    attach(ticket.mask, found).detach()
    found.eval()
    assert torch.allclose(found(inputs), scaled_toy(model, inputs, one, two), atol=1e-6, rtol=1e-5)
    assert ticket.removed == {"0": tuple(*torch.where(one == 0)), "3": tuple(*torch.where(two == 0))}
    assert ticket.start.what == "transformed"
    assert ticket.start.epochs_spent == 1
    assert ticket.recipe == {"epochs": 3}


def test_the_public_codes_factor_lies_in_the_weights_of_the_next_layer():
    task = toy_task()
    ticket = tb.find(task, tb.methods.GreedyChannels(0.5, repeat=False, candidates=2, samples=20, pretrain="1ep"))
    model = task.build(0)
    Run(0).stage("pretrain", task, model, observers=[Until(1)])
    kept = ticket.mask["3.weight"].any(0).any(-1).any(-1)
    assert int(kept.sum()) == 2
    alive = ticket.mask["3.weight"]
    assert torch.allclose(ticket.start.tensors["3.weight"][alive], (4 / 2 * model[3].weight)[alive])
    assert torch.equal(ticket.start.tensors["0.weight"][kept], model[0].weight[kept])


def test_a_shuffled_mask_has_weights_to_keep():
    task = toy_task()
    method = tb.methods.GreedyChannels(0.5, candidates=2, samples=20, pretrain="1ep")
    ticket = tb.find(task, method)
    shuffled = control("shuffle", Against(task, ticket, 1, method)).ticket
    assert shuffled.mask != ticket.mask
    for name, bits in shuffled.mask.items():
        assert shuffled.start.tensors[name][bits].all()


@pytest.mark.filterwarnings("ignore::tombola.training.StateWarning")  # of what this test notes in its loss
def test_candidates_are_told_apart_in_single_precision_where_training_is_in_bf16():
    told = []

    def loss(outputs, targets):
        value = F.cross_entropy(outputs, targets)
        told.append((outputs.dtype, value.dtype))
        return value

    task = toy_task()
    task = replace(task, loss=loss, recipe=replace(task.recipe, precision="bf16"))
    tb.find(task, tb.methods.GreedyChannels(0.5, candidates=2, samples=20, pretrain="0it"))
    assert (torch.bfloat16, torch.float32) in told
    assert {value for _, value in told} == {torch.float32}
    half, classes = torch.randn(9, 4, dtype=torch.bfloat16), torch.arange(9) % 4
    assert half_squared_error(half, classes) == half_squared_error(half.float(), classes)


# Where factors go


class Inverted(nn.Module):
    """MobileNetV2's block, with ReLU6 in place, and a skip where shapes agree."""

    def __init__(self, inputs: int, outputs: int, inside: int) -> None:
        super().__init__()
        self.skips = inputs == outputs
        self.branch_of = nn.Sequential(
            nn.Conv2d(inputs, inside, 1, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inside, inside, 3, padding=1, groups=inside, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inside, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x):
        return x + self.branch_of(x) if self.skips else self.branch_of(x)


class Reused(nn.Module):
    """One activation called in several places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 5)
        self.act = nn.Tanh()

    def forward(self, x):
        return self.three(self.act(self.two(self.act(self.one(x.flatten(1))))))


def mobile() -> nn.Module:
    stem = [nn.Conv2d(1, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(inplace=True)]
    blocks = [Inverted(6, 6, 12), Inverted(6, 8, 12)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def normed_mlp() -> nn.Module:
    hidden = [nn.Linear(64, 10), nn.Sigmoid(), nn.Linear(10, 9), nn.LayerNorm(9), nn.GELU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(9, 5))


def zoo_network(name, width):
    return partial(zoo.MODELS[name], (1, 8, 8), 5, width)


NETWORKS = {
    "toy": toy_network,
    "mobile": mobile,
    "normed-mlp": normed_mlp,
    "reused": Reused,
    "resnet20": zoo_network("resnet20", 0.25),
    "preresnet20": zoo_network("preresnet20", 0.25),
    "vgg11": zoo_network("vgg11", 0.05),
    "lenet5": zoo_network("lenet5", 1.0),
}


def probed(model, inputs):
    like = inputs[:2]
    return SeparateChannels().units(model, lambda own: own(like.to(next(own.parameters()).device)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_folded_and_masked_is_what_was_tried(name, dtype):
    torch.manual_seed(1)
    model = lively(NETWORKS[name]()).to(dtype).eval()
    inputs = torch.randn(6, 1, 8, 8, dtype=dtype)
    units, tolerance = probed(model, inputs), 1e-6 if dtype == torch.float32 else 1e-9
    sizes, kept = {group.name: group.size for group in units.groups}, {}
    places = sites_of(units.wiring, model)
    assert places
    for layer, own in places.items():
        sites = (*own, *silenced_sites(units.wiring, layer, own, {other: ~alive for other, alive in kept.items()}))
        candidates = torch.rand(3, sizes[layer], dtype=torch.float64) * 2
        candidates[:, 1:] *= torch.rand(3, sizes[layer] - 1) < 0.6
        with PrefixCache(model, sites, forward).ready() as network:
            tried = list(network.outputs(inputs, candidates))
            for replayed, factors in zip(tried, candidates, strict=True):
                assert torch.allclose(replayed, network.call(inputs, factors), rtol=tolerance, atol=tolerance)
        fold(model, sites, candidates[0])
        kept[layer] = candidates[0] != 0
        mask = units.expand(Mask.of(kept), tensors_of(model))
        attach(mask, model).detach()
        with torch.no_grad():
            assert torch.allclose(model(inputs), tried[0], rtol=10 * tolerance, atol=10 * tolerance)
    small = tb.shrink(model, mask, example=inputs)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert torch.allclose(small.double()(inputs.double()), model.double()(inputs.double()), rtol=1e-9, atol=1e-9)


def test_channels_are_multiplied_behind_the_activation_or_before_they_are_added():
    model, inputs = mobile().eval(), torch.randn(2, 1, 8, 8)
    places = sites_of(probed(model, inputs).wiring, model)
    where = {layer: [(site.module, site.entering) for site in sites] for layer, sites in places.items()}
    assert where["0"] == [("1", False)]
    assert where["3.branch_of.0"] == [("3.branch_of.6", True)]
    assert where["3.branch_of.6"] == [("3.branch_of.7", False)]
    assert where["4.branch_of.6"] == [("7", True)]
    assert "3.branch_of.3" not in where


def test_trying_leaves_the_network_as_it_was():
    model = toy_network()
    model[7].eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    selecting(model, "3", some_batches(), picks=3)
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_candidates_do_not_compute_what_comes_before_them():
    model, computed = toy_network(), []
    forwarded = model[0].forward
    model[0].forward = lambda x: (computed.append(len(x)), forwarded(x))[1]
    own = model[0].forward
    selecting(model, "3", some_batches()[:1], picks=2)
    tracing, picks = 1, 2
    assert len(computed) == tracing + picks
    assert model[0].forward is own


# Local imitation


def test_inner_products_give_the_error_of_what_the_next_layer_gets():
    model, inputs = lively(mobile()).double().eval(), torch.randn(7, 1, 8, 8).double()
    units = probed(model, inputs)
    for layer, sites in sites_of(units.wiring, model).items():
        size = {group.name: group.size for group in units.groups}[layer]
        products = gram(model, sites, size, forward, [inputs[:3], inputs[3:]])
        factors = torch.rand(size, dtype=torch.float64) * 2
        seen = []
        (site,) = sites
        watched = dict(model.named_modules())[site.module]
        with PrefixCache(model, sites, forward).ready() as network:
            hook = watched.register_forward_hook(lambda _, __, given, seen=seen: seen.append(given.clone()))
            network.call(inputs)
            network.call(inputs, factors)
            hook.remove()
        gap = (seen[1] - seen[0]).square().sum()
        away = factors - 1
        assert float(away @ products @ away) == pytest.approx(float(gap), rel=1e-9)


@pytest.mark.parametrize("repeat", [True, False])
def test_imitation_takes_the_best_step_to_the_best_channel(repeat):
    added = torch.randn(5, 12, dtype=torch.float64)
    target = added.sum(0)
    order, steps, errors = imitation_weights(added @ added.T, 4, repeat)
    factors = torch.zeros(5, dtype=torch.float64)
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)
    for number, (chosen, found) in enumerate(zip(order, steps, strict=True)):
        best = {}
        for unit in range(5):
            if repeat or unit not in order[:number]:
                towards = 5 * torch.eye(5, dtype=torch.float64)[unit]
                ways = towards[None] if number == 0 else factors + grid[:, None] * (towards - factors)
                best[unit] = float((ways @ added - target).square().sum(1).min())
        assert min(best, key=best.get) == chosen
        assert errors[number] * float(target.square().sum()) <= best[chosen] + 1e-9
        factors = found
    assert float(factors.sum()) == pytest.approx(5)


def test_imitation_ends_where_no_channel_helps():
    added = torch.eye(4, dtype=torch.float64)[[0, 0, 0, 0]]
    order, steps, errors = imitation_weights(added @ added.T, 3, False)
    assert len(order) == 1
    assert errors == [pytest.approx(0.0)]
    assert steps[0].tolist() == [4, 0, 0, 0]


def test_imitation_meets_a_goal_with_the_fewest_picks_that_do():
    task = toy_task()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SearchWarning)
        ticket = tb.find(task, tb.methods.GreedyChannels(1.0, tolerance=0.3, by="imitation", repeat=False))
    model = task.build(0)
    ticket.put_into(model)
    whole = task.build(0)
    Run(0).stage("pretrain", task, whole)
    wanted = first(task.batches("train", mixed(0, 1), 0), 2048)
    with PrefixCache(model, (), forward).ready() as cut, PrefixCache(whole, (), forward).ready() as dense:
        assert mean_metric(accuracy, wanted, cut) >= 0.7 * mean_metric(accuracy, wanted, dense)
    assert any(ticket.removed.values())


# The ticket


VARIANTS = {
    "squared": tb.methods.GreedyChannels(0.4, loss="squared", samples=30, tune=0.5, pretrain="1ep"),
    "begun": tb.methods.GreedyChannels(0.4, repeat=False, candidates=2, samples=30, pretrain="7it", tune=0.2),
    "untrained": tb.methods.GreedyChannels(0.4, repeat=False, samples=30, pretrain="0it", tune=1.0),
    "tolerant": tb.methods.GreedyChannels(1.0, tolerance=0.5, samples=50, fine_tune=1),
    "imitating": tb.methods.GreedyChannels(0.4, by="imitation", tolerance=0.4, tune=0.2),
}


QUICK = ("squared", "untrained")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in VARIANTS]
)
@pytest.mark.filterwarnings("ignore::tombola.methods.SearchWarning")
def test_every_setting_keeps_the_laws(name):
    check_method(VARIANTS[name])


@pytest.mark.slow
def test_residual_networks_keep_the_laws():
    method = tb.methods.GreedyChannels(0.5, repeat=False, candidates=2, samples=20, pretrain="1ep")
    check_method(method, lambda: nn.Sequential(Inverted(1, 4, 4), Inverted(4, 4, 4), nn.Flatten(), nn.Linear(256, 5)))


def test_the_same_share_of_every_layer_stays_and_the_ticket_trains_smaller():
    task = toy_task(mobile)
    ticket = tb.find(task, tb.methods.GreedyChannels(0.5, by="imitation", repeat=False, samples=40, pretrain="1ep"))
    assert {name: len(own) for name, own in ticket.removed.items()} == {
        "0": 3,
        "3.branch_of.0": 6,
        "3.branch_of.6": 3,
        "4.branch_of.0": 6,
        "4.branch_of.6": 4,
    }
    trained = tb.train(task, ticket)
    assert trained.plan is not None
    whole, small = (sum(p.numel() for p in own.parameters()) for own in (task.build(0), trained.model))
    assert small < 0.6 * whole


def test_a_layer_that_is_never_near_enough_is_kept_whole_and_said():
    task = toy_task()
    run = Run(0)
    with pytest.warns(SearchWarning, match=r"2 of 2 layers \('0', '3'\).*tolerance 0 and are kept whole"):
        ticket = tb.find(task, tb.methods.GreedyChannels(0.2, tolerance=0.0, repeat=False), run=run)
    assert ticket.removed == {"0": (), "3": ()}
    assert ticket.density == 1
    whole = task.build(0)
    Run(0).stage("pretrain", task, whole)
    model = task.build(0)
    ticket.put_into(model)
    assert all(torch.equal(own, tensors_of(whole)[name]) for name, own in tensors_of(model).items())
    rows = [row for row in run.history if row["stage"] == "layer"]
    assert [(row["layer"], row["kept"], row["of"], row["enough"]) for row in rows] == [
        ("0", 4, 4, False),
        ("3", 6, 6, False),
    ]


def test_search_and_tuning_begin_where_training_was_stopped():
    task = toy_task()
    steps = len(list(task.batches("train", 0, 0)))
    run = Run(0)
    ticket = tb.find(task, tb.methods.GreedyChannels(0.5, samples=20, pretrain="8it", tune=0.5), run=run)
    assert ticket.start.epochs_spent == pytest.approx(8 / steps + 2 * 0.5)
    tuned = [row for row in run.history if row["stage"].startswith("tune")]
    assert [(row["stage"], row["epoch"], row["lr"]) for row in tuned] == [
        ("tune-00", 1, 2.5e-3),
        ("tune-01", 2, 2.5e-3),
    ]


def test_layers_that_were_picked_are_read_and_not_picked_again(tmp_path):
    task, method = toy_task(), tb.methods.GreedyChannels(0.5, samples=20, pretrain="1ep")
    one = tb.find(task, method, run=Run(0, tmp_path))
    again = Run(0, tmp_path)
    two = tb.find(task, method, run=again)
    assert two.digest == one.digest
    files = {path.name for path in (tmp_path / "stages").iterdir()}
    assert {"layer-00.end.pt", "layer-01.end.pt"} <= files
    (tmp_path / "stages" / "layer-00.end.pt").unlink()
    assert tb.find(task, method, run=Run(0, tmp_path)).digest == one.digest


def test_the_search_sees_training_data_only():
    task = toy_task()
    seen = []

    class Watched(tb.SupervisedTask):
        def batches(self, split, seed, epoch):
            seen.append(split)
            return super().batches(split, seed, epoch)

    watched = Watched(**{name: value for name, value in vars(task).items() if not name.startswith("_")})
    model = watched.build(0)
    method = tb.methods.GreedyChannels(0.5, samples=20, pretrain="0it", tolerance=0.5)
    goal = method._goal(watched, model, Run(0))
    units = probed(model, task.data["train"][0])
    method._pick(watched, model, Run(0), 0, sites_of(units.wiring, model)["0"], 2, goal)
    assert set(seen) == {"train"}


# Refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"density": 1.5, "repeat": False}, "more channels than exist"),
        ({"density": 0.0}, "above 0"),
        ({"candidates": 0}, "candidates is 0"),
        ({"samples": 0}, "samples is 0"),
        ({"tolerance": 1.0}, "tolerance is 1"),
        ({"tune": 2.0}, "tune is 2"),
        ({"pretrain": "3"}, "not a point in training"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(TombolaError, match=words):
        tb.methods.GreedyChannels(**settings)


def test_a_point_behind_the_recipes_end_is_refused():
    with pytest.raises(TombolaError, match="'3ep', but the recipe ends after 2 epochs of 6 steps"):
        tb.find(toy_task(), tb.methods.GreedyChannels(pretrain="3ep"))


def test_a_network_without_hidden_channels_is_refused():
    task = toy_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))
    with pytest.raises(TombolaError, match="no layer of this network has channels that could be picked"):
        tb.find(task, tb.methods.GreedyChannels())


def test_too_few_channels_for_every_layer_are_refused():
    with pytest.raises(TombolaError, match="floor"):
        tb.find(toy_task(), tb.methods.GreedyChannels(0.1, pretrain="0it"))


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"repeat": False}, "exact"),
        ({"repeat": True}, "bound"),
        ({"repeat": False, "by": "imitation"}, "bound"),
        ({"repeat": False, "tolerance": 0.02}, "outcome"),
    ],
)
def test_the_density_is_what_the_settings_make_it(settings, kind):
    assert tb.methods.GreedyChannels(**settings).density_kind == kind
