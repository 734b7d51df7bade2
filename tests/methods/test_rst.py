"""Dual lottery tickets: the published dynamics step by step, the masks of cycles, the penalty's schedule, and laws."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tombola as tb
from networks import short_network
from tombola.evidence import budget_gap
from tombola.methods import RST
from tombola.testing import check_method, toy_task
from tombola.tickets import Seed, tensors_of
from tombola.training import Observer, Run

RECIPE = tb.Recipe(epochs=4, batch=20, lr=0.05, momentum=0.9, weight_decay=0.01, precision="float32")
TASK = replace(toy_task(short_network), recipe=RECIPE)


def published(model, passes, dropped, *, granularity, ceiling, interval, hold, lr, momentum, decay, power=1):
    """The transformation as the authors' code goes through it, of which this is a description in other code.

    passes: gives the batches of an epoch. dropped: the flat positions in each weight that shall go. Yields λ and the
    weights after each step.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=decay)
    weights = {name: parameter for name, parameter in model.named_parameters() if name in dropped}
    grown = {name: torch.zeros_like(weight).flatten() for name, weight in weights.items()}
    step, settled_at = -1, math.inf
    for epoch in itertools.count():
        for inputs, targets in passes(epoch):
            step += 1
            model.train()
            outputs = model(inputs)
            if settled_at == math.inf and step % interval == 0:
                for name, positions in dropped.items():
                    grown[name][positions] += granularity
                if all((grown[name] ** power).max() > ceiling for name in dropped):
                    settled_at = step
            loss = F.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            for name, weight in weights.items():
                weight.grad += (grown[name] ** power).view_as(weight) * weight
            optimizer.step()
            penalty = max(float((grown[name] ** power).max()) for name in dropped)
            yield penalty, {name: p.detach().clone() for name, p in model.named_parameters()}
            if step - settled_at == hold:
                return


class Seen(Observer):
    """Notes the weights after each step."""

    def __init__(self):
        self.weights = []

    def after_step(self, state):
        self.weights.append({name: p.detach().clone() for name, p in state.model.named_parameters()})


def network(dtype=torch.float32):
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 5)).to(dtype)


def without_dropout():
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_a_watch_takes_the_published_steps(dtype, power):
    torch.manual_seed(0)
    batches = [(torch.randn(8, 64, dtype=dtype), torch.randint(5, (8,))) for _ in range(3)]
    own, theirs = network(dtype), network(dtype)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    method = RST(0.3, increment=0.1, every="2it", hold="7it", power=power)
    watch = method.watch(own, optimizer, steps=1000, seed=5)
    mask, ramp = watch.ticket.mask, []
    weights = []
    while not watch.finished:
        for inputs, targets in batches:
            ramp.append(watch.penalty)
            optimizer.zero_grad()
            F.cross_entropy(own(inputs), targets).backward()
            optimizer.step()
            weights.append({name: p.detach().clone() for name, p in own.named_parameters()})
            if watch.finished:
                break
    dropped = {name: (~mask[name]).flatten().nonzero().flatten() for name in mask}
    settings = {"granularity": 0.1, "ceiling": 1.0, "interval": 2, "hold": 7, "lr": 0.05, "momentum": 0.9}
    expected = list(published(theirs, lambda epoch: batches, dropped, decay=5e-4, power=power, **settings))
    assert len(expected) == len(weights)
    assert ramp == pytest.approx([penalty for penalty, _ in expected], rel=1e-6)
    for own_step, (_, their_step) in zip(weights, expected, strict=True):
        for name in own_step:
            torch.testing.assert_close(own_step[name], their_step[name], rtol=1e-6, atol=1e-7)
    assert all(torch.equal(watch.ticket.start.tensors[name], weights[-1][name]) for name in weights[-1])


@pytest.mark.parametrize("delete", [False, True])
def test_a_search_in_cycles_takes_the_published_steps(delete):
    """Each cycle begins with λ at 0, a new optimizer and the first batch, and ends in the midst of an epoch."""
    method = RST(
        0.2, cycles=3, old="smallest", increment=0.3, every="1it", hold="3it", lr=0.02, batch=40, delete=delete
    )
    masks, seen = [], []

    class Watched(Run):
        def stage(self, name, task, model, **options):
            extrusion, own = options["observers"][0], Seen()
            masks.append(extrusion.mask)
            fitted = super().stage(name, task, model, **{**options, "observers": [*options["observers"], own]})
            seen.append(own.weights[: extrusion.ramp.steps])
            return fitted

    task = replace(TASK, model=without_dropout)
    ticket = tb.find(task, method, run=Watched(7))
    model, other = task.build(7), replace(task, recipe=replace(RECIPE, batch=40))
    settings = {"granularity": 0.3, "ceiling": 1.0, "interval": 1, "hold": 3, "lr": 0.02, "momentum": 0.9}
    for cycle, mask in enumerate(masks):
        dropped = {name: (~mask[name]).flatten().nonzero().flatten() for name in mask}
        if cycle:  # as many of the smallest as were dropped before are dropped again
            before = masks[cycle - 1]
            for name in mask:
                gone = model.get_parameter(name).detach().abs().flatten().argsort()[: int((~before[name]).sum())]
                assert set(gone.tolist()) <= set(dropped[name].tolist())
        if delete and cycle:
            continue  # compared by its zeros below
        passes = partial(other.batches, "train", 7)
        expected = list(published(model, passes, dropped, decay=0.01, **settings))
        assert len(expected) == len(seen[cycle]) == 7
        for own, (_, theirs) in zip(seen[cycle], expected, strict=True):
            for name in own:
                torch.testing.assert_close(own[name], theirs[name], rtol=1e-5, atol=1e-6)
        if delete:
            break
    assert [round(mask.density, 2) for mask in masks] == [0.58, 0.34, 0.2]
    if delete:
        for weights in seen[1]:
            assert all(not weights[name][~masks[0][name]].any() for name in masks[0])
    assert ticket.start.what == "transformed"
    assert ticket.start.epochs_spent == pytest.approx(3 * 7 / 3)
    assert ticket.mask == masks[-1]
    assert budget_gap(ticket, task) == ticket.start.epochs_spent  # which dense and controls get too


def test_the_published_ramp_takes_ten_thousand_increments():
    """In float32 λ is above 1 after exactly so many, and not after fewer; it is held for 40,000 steps."""
    ramp = RST(increment=1e-4, every="5it", hold="40000it").ramp_in(391, 200)
    assert len(ramp.values) == 10_000
    assert ramp.at(49_995) == ramp.at(89_000) == pytest.approx(1.0000535, abs=1e-7)
    assert ramp.at(49_994) <= 1
    assert ramp.steps == 49_995 + 40_000 + 1
    cycle = RST(increment=1e-4, every="1it", hold="10000it").ramp_in(391, 200)
    assert cycle.steps == 20_000


def test_a_ramp_in_epochs_or_shares_ends_at_its_ceiling():
    for ramp in (RST(ramp="2ep", hold="1ep").ramp_in(6, 10), RST(ramp=0.2, hold=0.1).ramp_in(6, 10)):
        assert (ramp.steps, len(ramp.values), ramp.values[-1]) == (18, 12, 1.0)
    squared = RST(ramp="4it", hold="0it", every="2it", power=2, ceiling=2.0).ramp_in(6, 10)
    assert [squared.at(step) for step in range(squared.steps)] == [0.5, 0.5, 2.0, 2.0]


@pytest.mark.parametrize(
    "method",
    [
        RST(0.5, granularity=tb.Channels()),
        RST(0.2, scope="smart-ratio", cycles=(0.5,), rewind="4it", pick="max", delete=True),
    ],
    ids=["channels", "smart-ratio"],
)
def test_the_laws_hold(method):
    check_method(method, short_network)


def test_layers_share_weights_by_erk_and_the_ticket_may_be_rewound_to_the_initialisation():
    ticket = tb.find(TASK, RST(0.2, scope="erk", cycles=2, old="smallest", rewind="init"))
    assert isinstance(ticket.start, Seed)
    assert ticket.mask.counts == tb.select(tb.scores.magnitude(TASK.build(0)), 0.2, scope="erk").counts


@pytest.mark.parametrize("cycles", [1, 3])
def test_any_mask_of_the_users_is_transformed_for(cycles):
    model = TASK.build(0)
    mask = tb.select(tb.scores.snip(model, list(TASK.batches("train", 0, 0)), TASK.loss), 0.07)
    method = RST(mask=mask, cycles=cycles, ramp="1ep", hold="0it")
    assert method.density == mask.density
    run = Run(0)
    ticket = tb.find(TASK, method, run=run)
    assert ticket.mask == mask
    curve = [row["density"] for row in run.history]
    assert len(curve) == cycles
    assert curve[-1] == mask.density
    assert all(earlier > later for earlier, later in pairwise(curve))
    assert all(row["penalty"] == 1.0 for row in run.history)


def test_a_ticket_of_channels_is_transformed_for_as_it_is():
    given = tb.find(TASK, tb.OneShot(0.5, tb.scores.Magnitude(), tb.Channels(), "layerwise"))
    ticket = tb.find(TASK, RST(mask=given, ramp="1ep"))
    assert (ticket.mask, ticket.removed) == (given.mask, given.removed)
    assert tb.train(TASK, ticket).plan is not None


def test_a_random_ticket_is_carried_through_the_cycles_and_its_norm_pressed_out():
    run = Run(0)
    ticket = tb.find(TASK, RST(0.1, cycles=3, ramp="3ep", hold="1ep", lr=0.05), run=run)
    assert ticket.mask.total_kept == round(0.1 * ticket.mask.size)
    ends = [row for row in run.history if row["epoch"] == 4]
    assert [row["penalty"] for row in ends] == [1.0, 1.0, 1.0]
    norms = [row["removed_norm"] for row in run.history[:4]]
    assert norms[0] > norms[1] > norms[2] > 2 * norms[3]


def test_a_watch_goes_on_after_a_checkpoint():
    def trained(stop):
        torch.manual_seed(0)
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        method = RST(0.3, cycles=2, ramp="4it", hold="1it", old="smallest", delete=True)
        watch = method.watch(model, optimizer, steps=20)
        for step in range(12):
            if step == stop:
                kept = copy.deepcopy((model.state_dict(), optimizer.state_dict(), watch.state_dict()))
                watch.detach()
                model = network()
                optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
                watch = method.watch(model, optimizer, steps=20)
                watch.load_state_dict(kept[2])
                model.load_state_dict(kept[0])
                optimizer.load_state_dict(kept[1])
            generator = torch.Generator().manual_seed(step)
            inputs, targets = torch.randn(8, 64, generator=generator), torch.randint(5, (8,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        return tensors_of(model), watch.ticket

    whole, ticket = trained(None)
    for stop in (3, 7, 11):
        resumed, its_ticket = trained(stop)
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
        assert its_ticket.digest == ticket.digest


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ramp": "10"}, "'10' is not a point in training"),
        ({"hold": -0.1}, "hold is -0.1; give a share"),
        ({"every": "0it"}, "every is 0it"),
        ({"increment": 0.0}, "λ grows by 0.0 to 1.0"),
        ({"cycles": 0}, "cycles is 0; give at least 1"),
        ({"cycles": (0.05,)}, "let them fall"),
        ({"rewind": "fine-tune"}, "rewind is 'fine-tune'; give 'end', 'init' or a step"),
        ({"lr": 0.0}, "lr is 0.0; give a number above 0"),
        (
            {"mask": tb.Mask.full({"a": (2, 2)}), "density": 0.3},
            "the mask that is given keeps 1; leave the density out",
        ),
        ({"mask": tb.Mask.full({"a": (2, 2)}), "old": "smallest"}, "stays the same in all cycles"),
    ],
)
def test_what_cannot_be_is_refused(settings, says):
    with pytest.raises(tb.TombolaError, match=says):
        RST(**settings)


def test_a_mask_of_another_network_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(Run, "stage", None)
    other = tb.Mask.full({"0.weight": (3, 3)})
    with pytest.raises(tb.TombolaError, match=r"another architecture: '0\.weight'"):
        tb.find(TASK, RST(mask=other))
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(tb.TombolaError, match="belongs to another architecture"):
        RST(mask=other).watch(model, optimizer, steps=5)
    with pytest.raises(tb.TombolaError, match="a cycle of the transformation takes 6 steps; give an earlier step"):
        tb.find(TASK, RST(rewind="7it", ramp="1ep", hold="0it"))
    with pytest.raises(tb.TombolaError, match="steps are counted, not epochs"):
        RST(ramp="1ep").watch(model, optimizer, steps=5)
    with pytest.raises(tb.TombolaError, match=r"lost in rounding|would grow"):
        RST(increment=1e-9).watch(model, optimizer, steps=5)
