"""Gradual magnitude pruning: the densities of its schedule, the smallest weights first, and what it leaves."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import tombola as tb
from networks import short_network, short_resnet, short_transformer
from tombola.evidence import budget_gap
from tombola.methods import Gradual
from tombola.methods.density_schedule import densities
from tombola.methods.gradual import GradualPruning
from tombola.papers.spiral import spiral_task
from tombola.papers.spiral.pruning_grid import as_studied
from tombola.papers.spiral.spiral_runs import Setting
from tombola.structure import Weights
from tombola.testing import check_method, toy_task
from tombola.tickets import attach
from tombola.training import Observer, Run, State
from tombola.training.loop import fit

EPOCHS = 4
RECIPE = tb.Recipe(epochs=EPOCHS, batch=20, lr=0.05, momentum=0.9, weight_decay=0.01, precision="float32")
TASK = replace(toy_task(), recipe=RECIPE)
OWN = Gradual(density=0.1, count=6)
ENDS = [3, 6, 9, 12, 15, 18]


class Look(Observer):
    """Notes mask and weights after each step; sees to it that what is dead is exactly zero."""

    def __init__(self):
        self.masks, self.weights = [], []

    def after_step(self, state):
        mask, named = state.attached.mask, dict(state.model.named_parameters())
        self.masks.append(mask)
        self.weights.append({name: named[name].detach().clone() for name in mask})
        for name in mask:
            moments = [t for t in state.optimizer.state[named[name]].values() if t.shape == named[name].shape]
            for tensor in (named[name].detach(), *moments):
                assert not tensor[~mask[name]].any()


def thinned(own=OWN, recipe=RECIPE):
    """A training: what was seen before and after each removal."""
    model = TASK.build(0)
    before, thinning, after = Look(), GradualPruning(own, own.granularity.units(model, None), model), Look()
    fit(
        replace(TASK, recipe=recipe), model, recipe, seed=0, attached=thinning.mask, observers=[before, thinning, after]
    )
    return before, after


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weights_go_at_even_distances_to_the_densities_of_the_schedule(optimizer):
    before, after = thinned(recipe=replace(RECIPE, optimizer=optimizer, lr=0.01))
    steps = [at + 1 for at, (one, other) in enumerate(zip(before.masks, after.masks, strict=True)) if one != other]
    assert steps == ENDS
    total = after.masks[0].size
    expected = [round(density * total) for density in densities(0.1, 6, "cubic")]
    assert [after.masks[step - 1].total_kept for step in steps] == expected
    assert after.masks[-1].total_kept == round(0.1 * total)


def test_each_removal_takes_the_smallest_weights_of_the_whole_network_for_good():
    before, after = thinned()
    assert all(earlier >= later for earlier, later in pairwise(after.masks))
    for step in ENDS:
        old, new, weights = before.masks[step - 1], after.masks[step - 1], before.weights[step - 1]
        gone = torch.cat([weights[name][old[name] & ~new[name]] for name in old])
        stays = torch.cat([weights[name][new[name]] for name in new])
        assert gone.abs().max() <= stays.abs().min()


def test_at_the_studys_settings_the_spirals_network_is_thinned_as_the_study_does():
    """After 97 j of 19,500 steps R + (T − R)(1 − j / 199)³ weights are left, from T = 560 to R = 22."""
    own = as_studied("gradual", 22 / 560, Setting(0.1, "constant"))
    model = spiral_task((16, 16, 16)).build(0)
    thinning = GradualPruning(own, Weights().units(model, None), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = attach(thinning.mask, model, optimizer)
    state = State(model, optimizer, tb.Recipe(epochs=50), 390, 0, 0, handle)
    left = []
    for state.step in range(1, 19_501):
        thinning.after_step(state)
        left.append(thinning.mask.total_kept)
    changes = [step for step, (one, other) in enumerate(pairwise(left), 2) if one != other]
    assert left[-1] == 22
    assert max(changes) == pytest.approx(97 * 180, abs=97)
    for j in (1, 10, 50, 100, 150, 198):
        assert left[97 * j + 4] == pytest.approx(22 + 538 * (1 - j / 199) ** 3, abs=1)


def test_with_more_removals_than_steps_there_is_one_a_step():
    _, after = thinned(Gradual(density=0.1, count=200, until=0.5))
    kept = [mask.total_kept for mask in after.masks]
    assert kept[:12] == [round(density * 732) for density in densities(0.1, 12, "cubic")]
    assert set(kept[12:]) == {73}


def test_the_ticket_is_the_trained_network_or_its_mask_on_the_initialisation():
    ticket = tb.find(TASK, OWN)
    trained = tb.train(TASK, ticket)
    assert trained.history == ()
    assert trained.validation == ticket.provenance.before
    assert all(torch.equal(value, ticket.start.tensors[name]) for name, value in trained.model.state_dict().items())
    rewound = tb.find(TASK, replace(OWN, rewind="init"))
    assert rewound.mask == ticket.mask
    assert isinstance(rewound.start, tb.tickets.Seed)
    assert len(tb.train(TASK, rewound).history) == EPOCHS
    assert budget_gap(ticket, TASK) == budget_gap(rewound, TASK) == 0


@pytest.mark.parametrize(
    "granularity", [Weights(), tb.Channels(), tb.structure.NM(2, 4)], ids=["weight", "channel", "2:4"]
)
@pytest.mark.parametrize("rewind", ["end", "init"])
def test_the_laws_hold(granularity, rewind):
    density = 0.5 if isinstance(granularity, tb.structure.NM) else 0.4
    check_method(Gradual(density, granularity, "layerwise", count=4, rewind=rewind), short_network)


@pytest.mark.parametrize(
    ("own", "build", "gone"),
    [
        (Gradual(0.5, tb.structure.PartUnits("head"), count=2, floor=1), short_transformer, 1 / 2),
        (Gradual(granularity=tb.structure.Blocks(2), count=2), short_resnet, 1 / 2),
    ],
    ids=["head", "block"],
)
def test_heads_and_blocks_go_while_the_network_trains(own, build, gone):
    task = toy_task(build)
    model = task.build(0)
    whole = GradualPruning(own, Run(0).units(own.granularity, task, model), model).kept
    ticket = tb.find(task, own)
    assert sum(map(len, ticket.removed.values())) == round(gone * whole.size)
    trained = tb.train(task, ticket)
    assert trained.history == ()
    assert sum(p.numel() for p in trained.model.parameters()) < sum(p.numel() for p in model.parameters())


def test_thinned_channels_are_cut_out():
    ticket = tb.find(TASK, Gradual(0.5, tb.Channels(), "layerwise"))
    small = tb.train(TASK, ticket).model
    assert any(ticket.removed.values())
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in TASK.build(0).parameters())


@pytest.mark.parametrize("granularity", [Weights(), tb.Channels()], ids=["weight", "channel"])
def test_killed_in_mid_training_it_finds_the_same_ticket(tmp_path, granularity):
    own, kill = Gradual(0.4, granularity, "layerwise", count=6), Kill()
    undisturbed = tb.find(TASK, own)
    with pytest.raises(KeyboardInterrupt):
        tb.find(replace(TASK, model=kill.network), own, run=Run(0, tmp_path, checkpoint_seconds=0.0))
    again = tb.find(TASK, own, run=Run(0, tmp_path, checkpoint_seconds=0.0))
    assert again.digest == undisturbed.digest


class Kill:
    """Interrupts a training in its third epoch."""

    def network(self):
        model = TASK.build(0)
        calls = iter(range(1000))
        model.register_forward_pre_hook(lambda *_: self.stop() if next(calls) == 20 else None)
        return model

    def stop(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"count": 0}, "count is 0; give how many times"),
        ({"until": 1.5}, "until is 1.5; give a share"),
        ({"rewind": "1ep"}, r"no Gradual with rewind '1ep' \(known: end, init\)"),
        ({"granularity": tb.structure.NM(2, 4), "density": 0.3}, "2:4"),
    ],
)
def test_what_cannot_be_is_refused(settings, says):
    with pytest.raises(tb.TombolaError, match=says):
        Gradual(**settings)


@pytest.mark.parametrize(
    ("start", "settings", "says"),
    [
        ("3ep", {}, "training starts at 3ep, when all that shall go by 75% of 4 epochs has to be gone; start earlier"),
        ("4ep", {"until": 1.0}, "by 100% of 4 epochs"),
        ("0ep", {"scope": dict.fromkeys(tb.scores.magnitude(TASK.build(0)), 0.5)}, "make the two agree"),
        ("0ep", {"granularity": tb.Channels(), "density": 0.1, "floor": 1}, "the floors ask for 2 units"),
    ],
)
def test_what_training_cannot_come_to_is_refused_before_it(start, settings, says, monkeypatch):
    monkeypatch.setattr(Run, "stage", None)
    with pytest.raises(tb.TombolaError, match=says):
        tb.find(replace(TASK, recipe=replace(RECIPE, start=start)), Gradual(**settings))


def test_a_training_that_starts_before_the_last_removal_comes_to_the_density():
    _, after = thinned(recipe=replace(RECIPE, start="17it"))
    assert after.masks[0].total_kept == after.masks[-1].total_kept == 73
