"""Supermasks: Gem-Miner, edge-popup, Continuous Sparsification, Concrete Ticket Search."""

from __future__ import annotations

import copy
import math
import re
import warnings
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from networks import short_network
from tombola import TombolaError
from tombola.evidence import Against, control
from tombola.methods import SearchWarning
from tombola.methods.gated_channels import GatedModel
from tombola.methods.masked_model import MaskedModel, Rounded, Topmost, TopShare, rounded
from tombola.methods.score_freezing import ScoreFreezing, first_penalty, freezing_steps
from tombola.methods.supermask import norms_and_biases
from tombola.testing import check_method, toy_task
from tombola.tickets import Values, kth_largest, tensors_of
from tombola.training import Run, State, evaluate, start_of, train

GEM_MINER = tb.GemMiner(density=0.2, penalty=1e-3, lr=1.0)
ALL = [
    GEM_MINER,
    replace(GEM_MINER, final="rounded"),
    replace(GEM_MINER, norm="l1"),
    replace(GEM_MINER, scope="layerwise"),
    replace(GEM_MINER, optimizer="adam", lr=0.01),
    replace(GEM_MINER, gradual=False),
    tb.methods.EdgePopup(density=0.2),
    tb.methods.EdgePopup(density=0.2, scope="global", gradual=True),
    tb.methods.ContinuousSparsification(density=0.2, rounds=2),
    tb.methods.ConcreteTicketSearch(density=0.2),
    tb.methods.ConcreteTicketSearch(density=0.2, objective="loss", rewind="7it"),
]


def made_state(steps_per_epoch: int) -> State:
    model = nn.Linear(1, 1)
    return State(
        model, torch.optim.SGD(model.parameters()), tb.Recipe(), steps_per_epoch, 0, 0, tb.attach(tb.Mask({}), model)
    )


@pytest.mark.parametrize(
    ("epochs", "density", "events", "share"),
    [
        (150, 0.0144, 29, 0.1360),
        (150, 0.0059, 29, 0.1622),
        (150, 0.0372, 29, 0.1073),
        (150, 0.05, 29, 0.0981),
        (150, 0.5, 29, 0.0236),
        (200, 0.005, 39, 0.1270),
        (300, 0.014, 59, 0.0698),
    ],
)
def test_freezing_follows_the_papers_schedule(epochs, density, events, share):
    steps = freezing_steps("5ep", 30, epochs * 391, 391)
    assert len(steps) == events
    assert steps[0] == 6 * 391
    assert 1 - density ** (1 / events) == pytest.approx(share, abs=5e-5)


@pytest.mark.parametrize("steps", [29, 59, 100, 300, 1410])
def test_without_a_period_the_search_has_thirty_equal_ones(steps):
    events = freezing_steps("", 30, steps, 10)
    assert len(events) == min(29, steps - 1)
    assert {later - earlier for earlier, later in pairwise([0, *events, steps])} <= {steps // 30, steps // 30 + 1}


def test_rounding_is_strict_and_its_gradient_goes_straight_through():
    score = torch.tensor([0.2, 0.5, 0.500001, 1.0], requires_grad=True)
    weight = torch.tensor([2.0, 3.0, -4.0, 5.0])
    effective = Rounded.apply(score, weight)
    assert effective.tolist() == [0.0, 0.0, -4.0, 5.0]
    effective.backward(torch.tensor([1.0, 10.0, 100.0, 0.0]))
    assert score.grad.tolist() == [2.0, 30.0, -400.0, 0.0]


def test_the_top_share_keeps_the_largest_magnitudes_and_their_gradient_has_the_scores_sign():
    score = torch.tensor([-3.0, 1.0, 2.0, -0.5], requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    effective = Topmost.apply(score, weight, 2.0)
    assert effective.tolist() == [1.0, 0.0, 3.0, 0.0]
    effective.sum().backward()
    assert score.grad.tolist() == [-1.0, 2.0, 3.0, -4.0]


@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_the_share_in_the_forward_pass_is_that_of_select(scope):
    torch.manual_seed(0)
    scores = {"a": torch.randn(40, 30), "b": torch.randn(17, 5) * 3}
    mask = TopShare(0.13, scope, 1).mask(scores)
    chosen = tb.select({name: score.abs() for name, score in scores.items()}, 0.13, scope=scope, floor=1)
    assert mask.total_kept == pytest.approx(chosen.total_kept, abs=1)
    assert mask.distance(chosen) < 0.002


@pytest.mark.parametrize("size", [5, 50, 70_000, 200_000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_kth_largest_is_that_of_a_sort(size, share):
    values = torch.randn(size, generator=torch.Generator().manual_seed(size)).round(decimals=2)
    count = max(1, round(share * size))
    assert (
        kth_largest([values[: size // 3], values[size // 3 :]], count) == values.sort(descending=True).values[count - 1]
    )


def reference_gem_miner(task, density: float, penalty: float, lr: float, seed: int, start: list[torch.Tensor]):
    """The paper's algorithm in the plainest terms: explicit scores, alive bits, regularised loss; exact counts."""
    model = task.build(seed)
    weights = [model[0].weight, model[3].weight, model[8].weight]
    with torch.no_grad():
        for weight in weights:
            weight.copy_(torch.where(weight < 0, -1.0, 1.0) * math.sqrt(2 / weight[0].numel()))
        model[0].bias.zero_()
        model[8].bias.zero_()
    scores = [own.clone().requires_grad_() for own in start]
    alive = [torch.ones_like(own) for own in start]
    optimizer = torch.optim.SGD(scores, lr, momentum=0.9)
    total, done = 2 * len(list(task.batches("train", seed, 0))), 0
    size = sum(own.numel() for own in start)
    events = list(range(3, total, 3))
    for epoch in range(2):
        model.train()
        for inputs, targets in task.batches("train", seed, epoch):
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 + math.cos(math.pi * done / total)) / 2
            hard = [((own > 0.5).float() - own).detach() + own for own in scores]
            masked = [w.detach() * q * r for w, q, r in zip(weights, alive, hard, strict=True)]
            named = dict(zip(["0.weight", "3.weight", "8.weight"], masked, strict=True))
            loss = F.cross_entropy(torch.func.functional_call(model, named, (inputs,)), targets)
            loss = loss + penalty * sum(own.square().sum() for own in scores)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            with torch.no_grad():
                for own in scores:
                    own.clamp_(0, 1)
                if done in events:
                    keep = round(size * density ** ((events.index(done) + 1) / len(events)))
                    flat = torch.cat(
                        [torch.where(q > 0, p, -1.0).flatten() for p, q in zip(scores, alive, strict=True)]
                    )
                    chosen = torch.zeros(size).index_fill_(0, flat.topk(keep).indices, 1.0)
                    parts = chosen.split([own.numel() for own in scores])
                    alive = [part.view_as(own) for part, own in zip(parts, scores, strict=True)]
    return alive, scores


def no_dropout() -> nn.Module:
    model = toy_task().model()
    model[7] = nn.Identity()
    return model


def searched_with(
    method: tb.methods.Supermask, task: tb.SupervisedTask
) -> tuple[tb.Ticket, list[torch.Tensor], list[torch.Tensor]]:
    """A search; its ticket, the scores that it began with and those that it ended with."""
    seen: list[MaskedModel] = []
    begun: list[list[torch.Tensor]] = []

    class Watched(Run):
        def stage(self, name, own, model, **given):
            seen.append(model)
            begun.append([score.detach().clone() for score in model.scores])
            done = super().stage(name, own, model, **given)
            begun.append([score.detach().clone() for score in model.scores])
            return done

    ticket = tb.find(task, method, run=Watched(seed=4))
    return ticket, begun[0], begun[1]


def test_a_search_is_the_papers_algorithm_step_by_step():
    task = toy_task(no_dropout)
    method = tb.GemMiner(density=0.2, penalty=3e-3, lr=0.5, period="3it")
    ticket, begun, ended = searched_with(method, task)
    assert all(float(own.min()) >= 0 and float(own.max()) <= 1 for own in begun)
    alive, scores = reference_gem_miner(task, 0.2, 3e-3, 0.5, 4, begun)
    for mine, theirs in zip(ended, scores, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-4, atol=1e-5)
    for kept, name in zip(alive, ticket.mask, strict=True):
        assert torch.equal(ticket.mask[name], kept.bool())


@pytest.mark.parametrize(("share", "exact", "paper"), [(0.3, 0.8, 0.7), (0.6, 0.8, 0.4)])
def test_ties_at_zero_keep_exact_counts_or_those_of_the_papers_code(share, exact, paper):
    task = toy_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.Linear(50, 5)))
    kept = {}
    for ties in ("exact", "paper-code"):
        method = tb.GemMiner(density=0.8, ties=ties, period="1it")
        searched = MaskedModel(task, task.build(0), tb.Prunable(), torch.rand_like, rounded)
        torch.manual_seed(1)
        for score in searched.named_scores.values():
            score.uniform_().mul_(torch.rand_like(score) >= share)
        freezing, state = ScoreFreezing(method, searched, None), made_state(2)
        state.recipe = tb.Recipe(epochs=1)
        freezing.epoch_begin(state)
        state.step = 1
        freezing.after_step(state)
        kept[ties] = freezing.result().density
    assert kept["exact"] == pytest.approx(exact, abs=1e-3)
    assert kept["paper-code"] == pytest.approx(paper, abs=0.02)


def test_without_penalty_and_freezing_half_of_the_weights_stay():
    ticket = tb.find(toy_task(), replace(GEM_MINER, penalty=0.0, gradual=False, final="rounded", lr=0.1))
    assert 0.44 < ticket.mask.density < 0.56


def test_what_rounds_to_one_is_part_of_what_is_alive():
    task = toy_task()
    alive, shown = (tb.find(task, replace(GEM_MINER, final=final)) for final in ("alive", "rounded"))
    assert shown.mask <= alive.mask
    assert alive.mask.total_kept == round(0.2 * 732)


def noisy_task() -> tb.SupervisedTask:
    """Five classes that overlap, so that nothing gets them all right."""
    generator = torch.Generator().manual_seed(5)
    targets = torch.arange(900) % 5
    centres = torch.randn(5, 64, generator=generator)
    inputs = centres[targets] + 4 * torch.randn(900, 64, generator=generator)
    data = {"train": (inputs[:800], targets[:800]), "test": (inputs[800:], targets[800:])}
    recipe = tb.Recipe(epochs=3, batch=40, lr=0.05, precision="float32")
    return tb.SupervisedTask(lambda: nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 5)), data, recipe=recipe)


@pytest.mark.parametrize("method", ALL, ids=lambda m: f"{type(m).__name__}-{ALL.index(m)}")
def test_the_metric_before_training_is_that_of_the_start_at_the_mask(method):
    """But for batch norm's statistics, which are the search's."""
    task = noisy_task()
    ticket = tb.find(task, method)
    assert 0.2 < ticket.provenance.before < 0.999
    model = start_of(task, ticket, 0)
    with tb.attach(ticket, model):
        metric, _, _ = evaluate(task, model, "validation", task.recipe)
    assert ticket.provenance.before == pytest.approx(metric, abs=1e-6)


def test_a_gem_trains_from_signed_constants_with_norms_and_biases_held():
    task = toy_task()
    ticket = tb.find(task, GEM_MINER)
    model = start_of(task, ticket, 0)
    own = task.build(0)
    for index in (0, 3, 8):
        weight = model[index].weight.detach()
        assert torch.equal(weight.sign(), own[index].weight.detach().sign())
        assert weight.abs().unique().tolist() == pytest.approx([math.sqrt(2 / weight[0].numel())])
    assert set(ticket.held) == {"0.bias", "1.weight", "1.bias", "4.weight", "4.bias", "8.bias"}
    trained = train(task, ticket).model
    assert trained[0].bias.eq(0).all()
    assert trained[1].weight.eq(1).all()
    assert trained[1].bias.eq(0).all()
    assert trained[1].running_mean.ne(0).any()


def test_held_can_be_left_out_and_the_networks_own_weights_searched():
    task = toy_task()
    ticket = tb.find(task, replace(GEM_MINER, weights="own", hold=False))
    assert ticket.held == ()
    assert ticket.start == tb.tickets.Seed.of(task.build(0), 0)


def test_a_gems_fresh_weights_are_signed_constants_too():
    task = toy_task()
    ticket = tb.find(task, GEM_MINER)
    arm = control("fresh-init", Against(task, ticket, 0, GEM_MINER))
    model, own = start_of(task, arm.ticket, 0), start_of(task, ticket, 0)
    assert arm.ticket.held == ticket.held
    assert torch.equal(model[8].weight.abs(), own[8].weight.abs())
    differing = model[8].weight.sign().ne(own[8].weight.sign()).float().mean()
    assert 0.3 < float(differing) < 0.7
    assert model[0].bias.eq(0).all()


def every_kind_of_layer() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=2),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.GroupNorm(2, 4),
        nn.Flatten(2),
        nn.Conv1d(4, 4, 4, stride=4),
        nn.Unflatten(2, (4, 4, 4)),
        nn.Conv3d(4, 2, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 5),
    )


@pytest.mark.parametrize("method", ALL, ids=lambda m: f"{type(m).__name__}-{ALL.index(m)}")
def test_every_kind_of_layer_is_searched_and_no_class_is_swapped(method):
    task = toy_task(every_kind_of_layer)
    before = [repr(module) for module in task.build(0).modules()]
    ticket = tb.find(task, method)
    assert set(ticket.mask) == {f"{index}.weight" for index in (0, 1, 2, 5, 7, 10)}
    trained = train(task, ticket)
    assert [repr(module) for module in trained.model.modules()] == before


def test_a_search_leaves_the_density_curve_behind():
    run = Run(0)
    tb.find(toy_task(epochs=3), GEM_MINER, run=run)
    densities = [row["density"] for row in run.history]
    assert len(densities) == 3
    assert densities[-1] < densities[0] <= 0.6
    assert all("validation_metric" in row and "penalty" in row for row in run.history)


def test_an_automatic_penalty_follows_the_density():
    run = Run(0)
    tb.find(toy_task(epochs=6), tb.GemMiner(density=0.1), run=run)
    penalties = [row["penalty"] for row in run.history]
    assert min(penalties) > 0
    assert len(set(penalties)) > 1


def test_a_penalty_that_empties_a_layer_stops_the_search_by_name():
    method = replace(GEM_MINER, penalty=10.0, floor=0)
    run = Run(0)
    with pytest.warns(
        SearchWarning, match=r"nothing was left of '0.weight', '3.weight', '8.weight' in epoch 1 .*lower the penalty"
    ):
        ticket = tb.find(toy_task(epochs=4), method, run=run)
    assert len(run.history) == 1
    assert ticket.mask.collapsed == ()
    assert 0.4 < ticket.mask.density < 0.6


def test_a_floor_keeps_every_layer_alive_and_says_so():
    with pytest.warns(SearchWarning, match="the best 2 of each were kept"):
        ticket = tb.find(toy_task(epochs=4), replace(GEM_MINER, penalty=10.0, floor=2))
    assert min(ticket.mask.counts.values()) >= 2


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (tb.GemMiner(density=1e-4), "keeps not one of 732 weights; give at least 0.0014"),
        (tb.methods.EdgePopup(density=1e-4), "keeps not one of 732 weights"),
        (tb.methods.ConcreteTicketSearch(density=1e-4), "keeps not one of 732 weights"),
        (tb.GemMiner(density=2.0), "density is 2.0"),
        (tb.GemMiner(density=0.003), "keeps 2 of 732 weights, fewer than a floor of 1 in each of 3 layers"),
        (tb.methods.EdgePopup(density=0.003), "fewer than a floor of 1"),
        (tb.methods.ConcreteTicketSearch(density=0.003, floor=1), "fewer than a floor of 1"),
        (tb.GemMiner(prunable=tb.Prunable(include=("none",))), "nothing to prune"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_the_search(method, words):
    run = Run(0)
    with pytest.raises(tb.TombolaError, match=words):
        tb.find(toy_task(), method, run=run)
    assert run.history == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"penalty": -1.0}, "the penalty is -1.0"),
        ({"penalty": math.nan}, "penalty is nan"),
        ({"length": 0.0}, "the length is 0.0"),
        ({"period": "0it"}, "the period is 0it"),
        ({"weights": "xavier"}, "no GemMiner with weights 'xavier'"),
        ({"periods": 0}, "periods is 0"),
        ({"floor": -1}, "floor is -1"),
        ({"period": "5"}, "'5' is not a point in training"),
        ({"keep": "top"}, "an automatic penalty follows the density"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(tb.TombolaError, match=words):
        tb.GemMiner(**settings)


@pytest.mark.parametrize("method", ALL, ids=lambda m: f"{type(m).__name__}-{ALL.index(m)}")
def test_every_setting_keeps_the_laws(method):
    check_method(method, short_network)


def test_a_period_longer_than_the_search_is_refused():
    with pytest.raises(tb.TombolaError, match="the period 5ep does not fit into a search of 2 epochs"):
        tb.find(toy_task(), replace(GEM_MINER, period="5ep"))


def test_the_papers_code_loses_the_same_share_each_time_and_never_makes_up_for_it():
    """With a penalty so strong that most scores are 0, the paper's own rule goes below its schedule."""
    method = replace(GEM_MINER, penalty=0.05, ties="paper-code", floor=1)
    with pytest.warns(SearchWarning):
        ticket = tb.find(toy_task(epochs=4), method)
    assert ticket.mask.total_kept < 0.5 * round(0.2 * 732)


def test_scores_that_are_not_numbers_are_refused_by_name():
    class Broken(Run):
        def stage(self, name, own, model, **given):
            model.scores[1].data[0] = math.nan
            return super().stage(name, own, model, **given)

    with pytest.raises(tb.TombolaError, match=r"the loss became nan|the scores of '.*' contain NaN"):
        tb.find(toy_task(), GEM_MINER, run=Broken(0))


def test_norms_and_biases_are_found_by_type():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.MultiheadAttention(4, 2), nn.Embedding(3, 4))
    held = norms_and_biases(model)
    assert set(held) == {"0.bias", "1.weight", "1.bias", "2.in_proj_bias", "2.out_proj.bias"}


def test_continuous_sparsification_folds_its_scale_into_the_start():
    task = toy_task()
    ticket = tb.find(task, tb.methods.ContinuousSparsification(density=0.5, start=0.0, rounds=1, rewind="0it"))
    own = tensors_of(task.build(0))
    assert isinstance(ticket.start, Values)
    assert ticket.start.epochs_spent == 0
    torch.testing.assert_close(ticket.start.tensors["3.weight"], own["3.weight"] * 2)
    assert torch.equal(ticket.start.tensors["0.bias"], own["0.bias"])
    assert ticket.recipe == {"start": "0it"}


def test_continuous_sparsification_keeps_positive_scores_and_at_most_the_density():
    task = toy_task()
    free = tb.find(task, tb.methods.ContinuousSparsification(density=1.0, start=0.05, rounds=1))
    bounded = tb.find(task, tb.methods.ContinuousSparsification(density=0.1, start=0.05, rounds=1))
    assert bounded.mask <= free.mask
    assert bounded.mask.total_kept == round(0.1 * 732)
    sparser = tb.find(task, tb.methods.ContinuousSparsification(density=1.0, start=0.05, rounds=1, penalty=0.05))
    assert sparser.mask.density < free.mask.density


@pytest.mark.parametrize("method", [GEM_MINER, tb.methods.EdgePopup(density=0.2)], ids=["gem-miner", "edge-popup"])
def test_a_custom_forward_and_a_wrapped_batch_are_respected(method):
    task = toy_task()

    def forward(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        assert type(model) is nn.Sequential
        return model[1:](model[0](inputs))

    tb.find(replace(task, forward=forward), method)


def test_no_search_warns_of_the_ties_that_clamped_scores_bring():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tb.find(toy_task(epochs=4), replace(GEM_MINER, penalty=0.005))


def test_the_searched_network_copies_without_its_task():
    task = toy_task()
    searched = MaskedModel(task, task.build(0), tb.Prunable(), partial(torch.full_like, fill_value=0.7), rounded)
    twin = copy.deepcopy(searched)
    inputs = task.data["test"][0]
    assert torch.equal(twin.eval()(inputs), searched.eval()(inputs))


@pytest.mark.parametrize(
    ("network", "density", "penalty", "events", "lr"),
    [
        ("resnet20", 0.0059, 1e-4, 29, 0.1),
        ("mobilenet-v2", 0.014, 1.5e-5, 59, 0.1),
        ("vgg16", 0.005, 1e-6, 39, 0.01),
        ("wrn-28-2", 0.2, 1e-5, 14, 0.5),
        ("resnet18", 0.05, 8e-6, 39, 0.001),
    ],
)
def test_the_papers_settings_are_there(network, density, penalty, events, lr):
    method, recipe = tb.methods.rare_gems(network, density)
    assert method.penalty == penalty
    searching = method.search_recipe(recipe, 391)
    assert searching.lr == lr
    assert len(freezing_steps(method.period, 30, recipe.epochs * 391, 391)) == events


def test_a_search_of_the_papers_length_gets_the_papers_rate():
    assert tb.GemMiner().search_recipe(tb.Recipe(epochs=150), 391).lr == pytest.approx(0.1)
    assert tb.GemMiner().search_recipe(tb.Recipe(epochs=10), 391).lr == pytest.approx(1.5)
    assert tb.GemMiner(lr=0.2).search_recipe(tb.Recipe(epochs=10), 391).lr == 0.2


def test_the_automatic_penalty_begins_near_the_papers():
    recipe = tb.GemMiner().search_recipe(tb.Recipe(epochs=150), 391)
    assert 0.5 < 1e-4 / first_penalty(0.0059, recipe, 391) < 1.6
    assert 0.5 < 3e-5 / first_penalty(0.0372, recipe, 391) < 1.6
    assert 0.25 < 1e-5 / first_penalty(0.1334, recipe, 391) < 0.5


@pytest.mark.parametrize(
    ("network", "density", "words"),
    [("resnet20", 0.02, "there are 0.0059, 0.0144"), ("resnet21", 0.02, "did you mean|resnet20")],
)
def test_what_the_paper_did_not_publish_is_refused(network, density, words):
    with pytest.raises(tb.TombolaError, match=words):
        tb.methods.rare_gems(network, density)


@pytest.mark.parametrize("method", ALL, ids=lambda m: f"{type(m).__name__}-{ALL.index(m)}")
@pytest.mark.parametrize("kind", ["label smoothing", "float64", "DataParallel", "AdamW"])
def test_every_search_runs_on(method, kind):
    task = noisy_task()
    if kind == "label smoothing":
        task = replace(task, recipe=replace(task.recipe, label_smoothing=0.1))
    elif kind == "AdamW":
        task = replace(task, recipe=replace(task.recipe, optimizer="adamw"))
    elif kind == "float64":
        data = {name: (inputs.double(), targets) for name, (inputs, targets) in task.data.items()}
        task = replace(task, data=data, model=lambda: noisy_task().model().double())
    else:
        task = replace(task, model=lambda: nn.DataParallel(noisy_task().model()))
    ticket = tb.find(task, method)
    trained = train(task, ticket).model
    assert not any(p.detach()[~ticket.mask[n]].any() for n, p in tensors_of(trained).items() if n in ticket.mask)


@pytest.mark.parametrize("name", ["erk", "smart-ratio", "magnitude-init"])
def test_random_controls_of_a_gem_start_as_it_does(name):
    task = toy_task()
    ticket = tb.find(task, GEM_MINER)
    arm = control(name, Against(task, ticket, 0, GEM_MINER))
    mine, its = tensors_of(start_of(task, arm.ticket, 0)), tensors_of(start_of(task, ticket, 0))
    assert all(torch.equal(mine[key], its[key]) for key in its)
    assert arm.ticket.held == ticket.held
    assert arm.ticket.mask != ticket.mask
    assert arm.ticket.mask.total_kept == pytest.approx(ticket.mask.total_kept, abs=1)


def test_what_the_user_froze_stays_frozen_under_continuous_sparsification():
    def half_frozen() -> nn.Module:
        model = toy_task().model()
        model[0].requires_grad_(requires_grad=False)
        return model

    task = toy_task(half_frozen)
    ticket = tb.find(task, tb.methods.ContinuousSparsification(density=0.5, rounds=1, rewind="12it", start=0.1))
    own = tensors_of(task.build(0))
    assert torch.equal(ticket.start.tensors["0.bias"], own["0.bias"])
    assert not torch.equal(ticket.start.tensors["8.bias"], own["8.bias"])


def test_continuous_sparsification_names_the_layers_that_it_empties_and_keeps_a_weight_in_each():
    with pytest.warns(SearchWarning, match="nothing was left of '0.weight', '3.weight', '8.weight'"):
        ticket = tb.find(toy_task(), tb.methods.ContinuousSparsification(density=0.5, start=-0.1))
    assert set(ticket.mask.counts.values()) == {1}


def test_a_search_that_begins_empty_is_refused_without_a_floor():
    method = tb.methods.EdgePopup(density=0.002, scope="global", floor=0)
    with pytest.warns(SearchWarning), pytest.raises(tb.TombolaError, match="before its first step; set a floor"):
        tb.find(toy_task(), method)


def test_a_longer_search_keeps_its_rate_and_goes_further():
    recipe = tb.Recipe(epochs=10)
    short, long = (tb.method(name).search_recipe(recipe, 391) for name in ("gem-miner", "gem-miner-long"))
    assert long.lr == short.lr
    assert long.epochs == 20 * short.epochs


def test_pretrained_weights_are_searched_as_they_are():
    method, _ = tb.methods.rare_gems("resnet50-pretrained", 0.02)
    assert (method.weights, method.hold) == ("own", False)


def test_at_full_density_the_papers_code_keeps_everything():
    ticket = tb.find(toy_task(), tb.GemMiner(density=1.0, ties="paper-code", penalty=0.0))
    assert ticket.mask.density == 1.0


# Channels


CHANNELS = tb.GemMiner(density=0.5, granularity=tb.Channels(), periods=4)


@pytest.mark.parametrize("method", [CHANNELS, replace(CHANNELS, hold=False, weights="own")], ids=["held", "own"])
@pytest.mark.filterwarnings("ignore::tombola.methods.SearchWarning")
def test_a_search_of_channels_keeps_the_laws(method):
    check_method(method, short_network)


def test_a_channels_score_gets_the_gradient_of_all_that_it_owns():
    torch.manual_seed(0)
    task = toy_task()
    model = task.build(0).eval()
    inputs, targets = next(iter(task.batches("train", 0, 0)))
    units = tb.Channels().units(model, lambda own: own(inputs.to(next(own.parameters()).device)))
    twin = copy.deepcopy(model)
    gated = GatedModel(task, model, units.groups, lambda alive: torch.full_like(alive, 0.75), rounded)
    assert torch.equal(gated(inputs), twin(inputs))
    F.cross_entropy(gated(inputs), targets).backward()
    gates = [torch.ones(4, requires_grad=True), torch.ones(6, requires_grad=True)]
    own = {}
    for gate, layer, norm in zip(gates, (0, 3), (1, 4), strict=True):
        for name in (f"{layer}.weight", f"{layer}.bias", f"{norm}.weight", f"{norm}.bias"):
            if name in dict(twin.named_parameters()):
                value = twin.get_parameter(name).detach()
                own[name] = value * gate.view(-1, *[1] * (value.ndim - 1))
    F.cross_entropy(torch.func.functional_call(twin, own, (inputs,)), targets).backward()
    for score, gate in zip(gated.scores, gates, strict=True):
        assert torch.allclose(score.grad, gate.grad, atol=1e-7)


@pytest.mark.filterwarnings("ignore::tombola.methods.SearchWarning")
def test_channels_found_before_training_train_as_a_smaller_network():
    task = toy_task(epochs=4)
    ticket = tb.find(task, replace(CHANNELS, floor=2), progress=False)
    trained = tb.train(task, ticket)
    assert sum(map(len, ticket.removed.values())) == 5
    assert trained.plan is not None
    held = dict(trained.model.named_parameters())
    assert all((held[name] == (1 if "weight" in name else 0)).all() for name in ticket.held if "8" not in name)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"keep": "top", "penalty": 0.0}, "not searched with keep='top'; give granularity weight"),
        ({"granularity": tb.structure.NM(), "density": 0.5}, "scores of 2:4s are not searched"),
        ({"hold": False}, "hold them, or give weights='own'"),
    ],
)
def test_what_cannot_be_searched_by_channels_is_refused(settings, says):
    with pytest.raises(TombolaError, match=re.escape(says)):
        replace(CHANNELS, **settings)
