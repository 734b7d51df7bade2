"""Early-Bird, WORM and network slimming: when masks settle, what is held back, and what is drawn."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from networks import short_network
from tombola import Mask, TombolaError
from tombola.methods import SearchWarning
from tombola.methods.mask_convergence import ConvergenceRule, MaskConvergence
from tombola.scores import BatchNormScale
from tombola.structure import norm_units
from tombola.testing import check_method, toy_network, toy_task
from tombola.tickets import Values, tensors_of
from tombola.training import Observer, Run

EAGER = {"window": 2, "epsilon": 0.6}
FAMILY = {
    "early-bird": tb.EarlyBird(**EAGER),
    "consecutive": tb.EarlyBird(rule="consecutive", **EAGER),
    "worm": tb.Worm(**EAGER),
    "always": tb.Worm(truncate="always", untrained=False, epsilon=0.9, window=2),
    "distance": tb.Worm(truncate="distance", momentum=True, **EAGER),
    "init": tb.EarlyBird(weights="init", **EAGER),
    "fresh": tb.EarlyBird(weights="fresh", **EAGER),
    "slimming": tb.methods.Slimming(0.4),
}


def settling_of(settings: ConvergenceRule, model: nn.Module) -> MaskConvergence:
    return MaskConvergence(settings, model, norm_units(model), BatchNormScale())


def lively(seed: int = 0) -> nn.Sequential:
    """The toy network with scales that differ."""
    torch.manual_seed(seed)
    model = toy_network()
    for norm in (model[1], model[4]):
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_()
    return model


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.filterwarnings("ignore::tombola.methods.SearchWarning")
def test_every_setting_keeps_the_laws(name):
    check_method(FAMILY[name], short_network)


# When masks settle


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({}, 4),
        ({"window": 3}, 2),
        ({"untrained": False}, 5),
        ({"rule": "consecutive"}, 5),
        ({"rule": "consecutive", "untrained": False}, 6),
    ],
)
def test_a_frozen_network_is_a_ticket_as_soon_as_the_window_is_full(settings, epochs):
    settling = settling_of(ConvergenceRule(**settings), lively())
    seen = [settling.look() for _ in range(epochs)]
    assert seen == [False] * (epochs - 1) + [True]


def test_before_the_window_is_full_nothing_is_held_back():
    model = lively()
    settling = settling_of(tb.Worm(0.5), model)
    for _ in range(3):
        settling.look()
        assert (settling.full, settling.factor) == (False, 1.0)
    settling.look()
    assert (settling.full, settling.factor) == (True, 3e-3)


def test_distances_are_those_of_the_newest_mask_to_each_older_one():
    model = lively()
    settling = settling_of(ConvergenceRule(window=3), model)
    masks = [settling.kept]
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        for norm in (model[1], model[4]):
            norm.weight.data.uniform_(0.5, 1.5)
        settling.look()
        masks.append(settling.kept)
    assert settling.distances == [masks[3].distance(masks[1]), masks[3].distance(masks[2])]
    assert all(mask.total_kept == 5 for mask in masks)


def test_the_mask_keeps_the_largest_scales_over_all_norms_and_one_in_each():
    model = lively()
    model[1].weight.data.mul_(0.01)
    model[1].weight.data[2] = -0.02
    settling = settling_of(ConvergenceRule(0.5), model)
    assert settling.kept["1"].tolist() == [False, False, True, False]
    best = model[4].weight.abs().topk(4).indices.tolist()
    assert sorted(settling.kept["4"].nonzero().flatten().tolist()) == sorted(best)
    assert set(settling.mask) == {"1.weight", "1.bias", "4.weight", "4.bias"}


def test_two_unrelated_masks_differ_in_half_of_the_channels():
    masks = [Mask.of({"norm": torch.randperm(4000) < 2000}) for _ in range(2)]
    assert masks[0].distance(masks[1]) == pytest.approx(0.5, abs=0.05)
    assert masks[0].distance(~masks[0]) == 1


# What is held back


def one_epoch(model: nn.Module, settling: MaskConvergence, **optimizer) -> None:
    """Steps on noise with what the settings do to gradients."""
    stepping = torch.optim.SGD(model.parameters(), 0.1, **optimizer)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        stepping.zero_grad()
        F.cross_entropy(model(torch.randn(10, 1, 8, 8, generator=generator)), torch.arange(10) % 5).backward()
        settling.shape_gradients()
        stepping.step()


def test_without_momentum_and_decay_a_factor_of_0_freezes_dropped_scales_and_nothing_else():
    model = lively()
    settling = settling_of(tb.Worm(0.5, truncation=0.0, truncate="always"), model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    one_epoch(model, settling)
    for name, parameter in model.named_parameters():
        moved = parameter.detach() != before[name]
        kept = settling.mask[name] if name in settling.mask else torch.ones_like(moved)
        assert not moved[~kept].any(), name
        assert moved[kept].any() or name == "0.bias", name  # A norm takes the bias before it away.


@pytest.mark.parametrize("momentum", [False, True])
def test_momentum_of_before_carries_dropped_scales_on_unless_it_is_scaled_too(momentum):
    model = lively()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    model(torch.randn(10, 1, 8, 8)).square().sum().backward()
    optimizer.step()
    settling = settling_of(tb.Worm(0.5, truncation=0.0, truncate="always", momentum=momentum), model)
    settling.look(optimizer)
    dead = ~settling.mask["4.weight"]
    before = model[4].weight.detach().clone()
    optimizer.zero_grad()
    model(torch.randn(10, 1, 8, 8)).square().sum().backward()
    settling.shape_gradients()
    optimizer.step()
    assert torch.equal(model[4].weight.detach()[dead], before[dead]) == momentum


def test_a_factor_scales_the_gradients_of_dropped_scales_and_shifts():
    model = lively()
    settling = settling_of(tb.Worm(0.5, truncation=0.01, truncate="always"), model)
    model(torch.randn(10, 1, 8, 8)).square().sum().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    settling.shape_gradients()
    for name, parameter in model.named_parameters():
        factor = torch.where(settling.mask[name], 1.0, 0.01) if name in settling.mask else torch.tensor(1.0)
        assert torch.equal(parameter.grad, before[name] * factor), name


def test_without_a_task_gradient_the_penalty_moves_scales_by_its_share_of_the_sign():
    model = lively()
    model[4].weight.data[0] = -1.0
    settling = settling_of(tb.methods.Slimming(0.5, penalty=0.25), model)
    before = model[4].weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    settling.shape_gradients()
    optimizer.step()
    assert torch.allclose(model[4].weight.detach(), before - 0.1 * 0.25 * before.sign())
    assert not model[4].bias.grad.any()


class Distances(Observer):
    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def epoch_end(self, state) -> None:
        self.weights.append({name: tensor.clone() for name, tensor in tensors_of(state.model).items()})


def test_worm_with_a_factor_of_1_is_early_bird_bit_for_bit():
    ours = []
    for method in (tb.EarlyBird(**EAGER), tb.Worm(truncation=1.0, **EAGER)):
        ours.append(tb.find(toy_task(), method, progress=False))
    assert ours[0].digest == ours[1].digest


# What is drawn


def test_a_settled_ticket_goes_on_from_its_weights_at_its_point_of_the_schedule():
    task = toy_task(epochs=6)
    run = Run(0)
    ticket = tb.find(task, tb.EarlyBird(0.5, window=3, epsilon=0.5), run=run)
    spent = len(run.history)
    assert spent < 6
    assert run.history[-1]["mask_distance"] < 0.5
    assert ticket.recipe == {"start": f"{spent}ep"}
    assert isinstance(ticket.start, Values)
    assert (ticket.start.what, ticket.start.epochs_spent) == (f"{spent}ep", spent)
    trained = tb.train(task, ticket)
    assert len(trained.history) == 6 - spent


@pytest.mark.parametrize(("weights", "seed"), [("init", 0), ("fresh", None)])
def test_a_ticket_may_start_over(weights, seed):
    ticket = tb.find(toy_task(), tb.EarlyBird(0.5, weights=weights, **EAGER), progress=False)
    assert ticket.recipe == {}
    assert (ticket.start.seed == 0) == (seed == 0)


def test_masks_that_do_not_settle_are_told():
    with pytest.warns(SearchWarning, match=r"did not settle in 2 epochs .*train longer"):
        ticket = tb.find(toy_task(), tb.EarlyBird(0.5), progress=False)
    assert (ticket.start.what, ticket.start.epochs_spent, ticket.recipe) == ("end", 2, {})


def test_slimming_trains_to_the_end_and_says_nothing():
    ticket = tb.find(toy_task(), tb.methods.Slimming(0.5), progress=False)
    assert (ticket.start.what, ticket.start.epochs_spent) == ("end", 2)


def without_dropout() -> nn.Sequential:
    """What is drawn for dropout depends on the size of what it drops from."""
    return nn.Sequential(*(module for module in toy_network() if not isinstance(module, nn.Dropout)))


def test_the_smaller_network_begins_and_trains_as_the_masked_one():
    task = toy_task(without_dropout)
    ticket = tb.find(task, tb.Worm(0.5, **EAGER), progress=False)
    x = torch.randn(4, 1, 8, 8)
    model = task.build(0)
    ticket.put_into(model)
    tb.attach(ticket, model).detach()
    small = tb.shrink(model, ticket, example=x)
    assert torch.allclose(small.eval()(x), model.eval()(x), atol=1e-5)
    assert small[0].out_channels + small[3].out_channels == 5
    trained, masked = (tb.train(task, ticket, small=own) for own in (True, False))
    assert all(not masked.model.get_parameter(name)[~ticket.mask[name]].any() for name in ticket.mask)
    assert masked.plan is None
    assert trained.plan.mask == Mask({})
    assert trained.model[0].weight.shape == small[0].weight.shape
    assert trained.loss == pytest.approx(masked.loss, rel=1e-3)
    assert trained.cost.flops < 0.7 * masked.cost.flops


# In one's own loop


def train_with(watch, model, optimizer, epochs: int, accumulate: int = 1) -> int:
    """A plain loop; the epoch at which the watch asked to stop."""
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(epoch)
        for index in range(4):
            loss = F.cross_entropy(model(torch.randn(12, 1, 8, 8, generator=generator)), torch.arange(12) % 5)
            (loss / accumulate).backward()
            if (index + 1) % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
        if watch.epoch_end():
            return epoch + 1
    return epochs


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.02, 0.9), lambda p: torch.optim.AdamW(p, 0.01)])
def test_a_plain_loop_is_watched_by_hooks_of_the_optimizer_alone(accumulate, make):
    model, x = lively(), torch.randn(4, 1, 8, 8)
    optimizer = make(model.parameters())
    watch = tb.Worm(0.5, epsilon=0.3).watch(model, optimizer, example=x)
    epochs = train_with(watch, model, optimizer, 12, accumulate)
    assert 4 <= epochs < 12
    assert watch.distance < 0.3
    ticket = watch.ticket
    assert sum(len(own) for own in ticket.removed.values()) == 5
    small = tb.shrink(model, ticket, optimizer, x)
    loss = small(x).square().sum()
    loss.backward()
    watch.detach()
    optimizer.step()


def test_without_an_example_the_ticket_is_of_norms_and_shrinks_all_the_same():
    model, x = lively(), torch.randn(4, 1, 8, 8)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    bare, whole = (tb.EarlyBird(0.5).watch(model, optimizer, example=own).ticket for own in (None, x))
    assert set(bare.mask) == {"1.weight", "1.bias", "4.weight", "4.bias"}
    small = [tb.shrink(model, ticket, example=x).eval() for ticket in (bare, whole)]
    assert torch.equal(small[0](x), small[1](x))
    assert [layer.weight.shape for layer in (small[0][0], small[0][3])] == [
        layer.weight.shape for layer in (small[1][0], small[1][3])
    ]


def test_a_watch_goes_on_where_it_was():
    def begin():
        model = lively()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
        return model, optimizer, tb.Worm(0.5).watch(model, optimizer)

    model, optimizer, watch = begin()
    train_with(watch, model, optimizer, 4)
    later, other, again = begin()
    later.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again.load_state_dict(copy.deepcopy(watch.state_dict()))
    for own, stepping, looking in ((model, optimizer, watch), (later, other, again)):
        torch.manual_seed(5)
        train_with(looking, own, stepping, 2)
    assert watch.distance == again.distance
    assert watch.ticket.digest == again.ticket.digest


def test_gradients_that_overflow_in_mixed_precision_leave_no_trace():
    model = lively()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    tb.Worm(0.5, truncation=0.0, truncate="always", penalty=0.1).watch(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = copy.deepcopy(model.state_dict())
    loss = model(torch.randn(10, 1, 8, 8)).square().sum()
    scaler.scale(loss * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key, _ in model.named_parameters())


@pytest.mark.parametrize("fused", [False, True])
def test_a_scaled_training_is_the_plain_one(fused):
    """A fused optimizer unscales within its step, so that what the watch sees is still scaled."""
    ends = []
    for scaled in (False, True):
        torch.manual_seed(0)
        model = lively()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, fused=fused)
        watch = tb.Worm(0.5, truncation=0.1, truncate="always", penalty=0.01).watch(model, optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        torch.manual_seed(1)
        for _ in range(3):
            for _ in range(4):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(torch.randn(10, 1, 8, 8)), torch.arange(10) % 5)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            watch.epoch_end()
        ends.append((tensors_of(model), watch.ticket.mask))
    assert ends[0][1] == ends[1][1]
    assert all(torch.allclose(ends[0][0][name], ends[1][0][name], atol=1e-5) for name in ends[0][0])


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (
            lambda: tb.find(toy_task(model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5))), tb.Worm()),
            "magnitude",
        ),
        (lambda: BatchNormScale()(nn.Linear(3, 3)), "no batch norm with a scale"),
        (lambda: tb.EarlyBird(window=1), "the window is 1; give at least 2"),
        (lambda: tb.EarlyBird(epsilon=-0.1), "epsilon is -0.1"),
        (lambda: tb.Worm(truncation=1.5), "give a factor from 0 to 1"),
        (
            lambda: tb.EarlyBird().watch(toy_network(), torch.optim.SGD(toy_network().parameters(), 0.1)),
            "the optimizer does not hold '1.weight'",
        ),
        (lambda: tb.find(toy_task(), tb.EarlyBird(density=0.01)), "keeps not one of 10 units"),
    ],
)
def test_what_cannot_be_done_is_refused(act, says):
    with pytest.raises(TombolaError, match=says):
        act()


def test_a_score_of_scales_prunes_channels_by_them():
    model = lively()
    model[1].weight.data[:] = torch.tensor([0.1, -2.0, 0.2, 3.0])
    assert BatchNormScale()(model)["1.weight"].tolist() == pytest.approx([0.1, 2.0, 0.2, 3.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method = replace(tb.OneShot(density=0.5, granularity=tb.Channels(), floor=1), score=BatchNormScale())
        ticket = tb.find(toy_task(lambda: copy.deepcopy(model)), method, progress=False)
    assert set(ticket.removed["0"]) >= {0, 2}


def test_a_closure_is_watched_too():
    model, x = lively(), torch.randn(10, 1, 8, 8)
    twin = copy.deepcopy(model)
    for own, closes in ((model, False), (twin, True)):
        optimizer = torch.optim.SGD(own.parameters(), 0.1)
        tb.methods.Slimming(0.5, penalty=1.0).watch(own, optimizer)

        def closure(own=own, optimizer=optimizer):
            optimizer.zero_grad()
            torch.manual_seed(0)
            loss = own(x).square().mean()
            loss.backward()
            return loss

        if closes:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_watch_without_the_untrained_mask_begins_after_an_epoch():
    model = lively()
    watch = tb.EarlyBird(0.5, untrained=False).watch(model, torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(TombolaError, match=r"call epoch_end\(\) after an epoch first"):
        _ = watch.ticket
    watch.epoch_end()
    assert watch.ticket.mask.kept("4.weight") >= 1


def test_the_norm_that_gives_the_outputs_is_left_alone():
    model, x = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.BatchNorm1d(6)), None
    model[4].weight.data.fill_(0.01)
    x = torch.randn(5, 4)
    ticket = tb.EarlyBird(0.5).watch(model, torch.optim.SGD(model.parameters(), 0.1), example=x).ticket
    assert set(ticket.removed) == {"0"}
    assert "4.weight" not in ticket.mask or ticket.mask["4.weight"].all()


@pytest.mark.parametrize("state", [{}, {"settling": {}, "epochs": 1, "more": 2}])
def test_a_state_that_is_not_a_watchs_is_refused(state):
    model = lively()
    watch = tb.EarlyBird(0.5).watch(model, torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(TombolaError, match="not the state of a watch"):
        watch.load_state_dict(state)


def test_a_state_of_another_networks_watch_is_refused():
    watches = []
    for model in (lively(), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))):
        watches.append(tb.EarlyBird(0.5).watch(model, torch.optim.SGD(model.parameters(), 0.1)))
    with pytest.raises(TombolaError, match="are of another network"):
        watches[0].load_state_dict(watches[1].state_dict())
    assert watches[0].ticket.mask.kept("1.weight") >= 1
