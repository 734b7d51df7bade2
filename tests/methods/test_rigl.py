"""RigL and SET: a mask that moves while its network trains, at exact counts, where the settings say and by the seed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.evidence import budget_gap
from tombola.methods import SearchWarning
from tombola.methods.regrowth import MovingRegrowth, dropped_share, move_mask
from tombola.testing import LawBroken, check_method, toy_network, toy_task
from tombola.training import Observer, Run
from tombola.training.checkpoint import Checkpoint
from tombola.training.loop import fit

EPOCHS, STEPS = 4, 24
RIGL = tb.methods.RigL(density=0.3, every="3it")
UPDATES = [3, 6, 9, 12, 15]
SGD = tb.Recipe(epochs=EPOCHS, batch=20, lr=0.05, momentum=0.9, weight_decay=0.01, precision="float32")
ADAMW = replace(SGD, optimizer="adamw", lr=0.01, weight_decay=0.1)
GROWTHS = pytest.mark.parametrize("grow", ["gradient", "random"])
RECIPES = pytest.mark.parametrize("recipe", [SGD, ADAMW], ids=["sgd", "adamw"])


def copies(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def moments(state, name):
    """The optimizer's tensors of a parameter's shape."""
    parameter = state.model.get_parameter(name)
    return [t.clone() for t in state.optimizer.state[parameter].values() if t.shape == parameter.shape]


class Look(Observer):
    """Notes the mask, weights, gradients and optimizer state before each optimizer step."""

    def __init__(self):
        self.masks, self.weights, self.gradients, self.moments = [], [], [], []

    def before_step(self, state):
        named = dict(state.model.named_parameters())
        self.masks.append(state.attached.mask)
        self.weights.append(copies(named))
        self.gradients.append({n: None if p.grad is None else p.grad.clone() for n, p in named.items()})
        self.moments.append({name: moments(state, name) for name in state.attached.mask})


class Exact(Observer):
    """Sees to it that what is dead is exactly zero after every step, and that each layer keeps its count."""

    def __init__(self):
        self.counts = None

    def after_step(self, state):
        mask = state.attached.mask
        self.counts = self.counts or mask.counts
        assert mask.counts == self.counts
        for name in mask:
            for tensor in (state.model.get_parameter(name).detach(), *moments(state, name)):
                assert not tensor[~mask[name]].any()


def sparse_training(method=RIGL, recipe=SGD, seed=0, model=None, checkpoint=None, more=()):
    """A training on the toy task: the model, its history, and what was seen before and after each update."""
    task = replace(toy_task(), recipe=recipe)
    model = model or task.build(0)
    drawn = tb.OneShot(method.density, tb.scores.Random(), scope=method.scope).find(task, Run(seed)).mask
    regrowing, before, after = MovingRegrowth(method, drawn, seed), Look(), Look()
    observers = [before, regrowing, after, Exact(), *more]
    done = fit(task, model, recipe, seed=seed, attached=drawn, observers=observers, checkpoint=checkpoint)
    assert before.masks[0] == drawn
    assert after.masks[-1] == regrowing.mask
    return model, done.history, before, after


def test_an_update_is_what_a_hand_computes():
    weights = {"fc": torch.tensor([[3.0, 1.0, 0.0], [0.0, -2.0, 0.0]])}
    mask = tb.Mask.of({"fc": weights["fc"] != 0})
    gradients = {"fc": torch.tensor([[9.0, 8.0, 4.0], [0.5, 7.0, 2.0]])}
    assert move_mask(mask, weights, gradients, {"fc": 1})["fc"].tolist() == [[True, False, True], [False, True, False]]
    assert move_mask(mask, weights, gradients, {"fc": 2})["fc"].tolist() == [[True, False, True], [False, False, True]]
    assert move_mask(mask, weights, gradients, {"fc": 0}) == mask


def test_the_dropped_share_falls_as_a_cosine():
    shares = [dropped_share(0.3, step, 60) for step in (0, 20, 30, 40, 60)]
    assert shares == pytest.approx([0.3, 0.225, 0.15, 0.075, 0])


@GROWTHS
@RECIPES
def test_each_update_moves_the_smallest_weights_in_exact_numbers_until_three_quarters_of_training(grow, recipe):
    _, _, before, after = sparse_training(replace(RIGL, grow=grow), recipe)
    assert [step for step in range(STEPS) if before.masks[step] != after.masks[step]] == UPDATES
    assert all(one == other for one, other in pairwise(after.masks[max(UPDATES) :]))
    for step in UPDATES:
        old, new, share = before.masks[step], after.masks[step], dropped_share(0.3, step, 18)
        for name in old:
            dropped, grown = old[name] & ~new[name], new[name] & ~old[name]
            dead = (~old[name]).sum()
            assert dropped.sum() == grown.sum() == min(int(share * old.kept(name)), dead)
            sizes = before.weights[step][name].abs()
            if dropped.any():
                assert sizes[dropped].max() <= sizes[old[name] & new[name]].min()


def test_rigl_grows_where_the_dense_gradient_is_largest():
    _, _, before, after = sparse_training()
    for step in UPDATES:
        for name, gradient in before.gradients[step].items():
            if name in after.masks[step]:
                dead = ~before.masks[step][name]
                grown = after.masks[step][name] & dead
                if grown.any():
                    assert gradient[grown].abs().min() >= gradient[dead & ~grown].abs().max()
                    assert gradient[grown].all()


def test_gradients_of_dead_weights_are_zero_but_at_the_updates_of_rigl():
    for grow, dense in (("gradient", UPDATES), ("random", [])):
        _, _, before, _ = sparse_training(replace(RIGL, grow=grow))
        seen = [
            step
            for step in range(STEPS)
            if any(before.gradients[step][name][~mask[name]].any() for mask in [before.masks[step]] for name in mask)
        ]
        assert seen == dense


def test_set_grows_anywhere_by_the_seed():
    method = replace(RIGL, grow="random")
    one, again, other = (sparse_training(method, seed=seed)[3].masks[3] for seed in (0, 0, 1))
    assert one == again
    assert one != other
    _, _, before, after = sparse_training(method, model=half_silent_network())
    grown = after.masks[3]["8.weight"] & ~before.masks[3]["8.weight"]
    assert grown[:, :48].any()
    assert grown[:, 48:].any()


def half_silent_network():
    """The toy network, half of whose last layer's inputs are always 0, and so the gradients of their weights."""
    model = toy_network()
    model[6] = nn.Sequential(nn.Flatten(), HalfSilent())
    return model


class HalfSilent(nn.Module):
    def forward(self, inputs):
        return torch.cat([inputs[:, :48], torch.zeros_like(inputs[:, 48:])], 1)


@RECIPES
def test_an_update_takes_the_place_of_the_optimizers_step_and_what_grows_starts_from_nothing(recipe):
    _, _, before, after = sparse_training(recipe=recipe)
    for step in UPDATES:
        assert all(gradient is None for gradient in after.gradients[step].values())
        for name, weight in before.weights[step].items():
            later = before.weights[step + 1][name]
            if name not in after.masks[step]:
                assert torch.equal(later, weight)
                continue
            mask = after.masks[step][name]
            assert torch.equal(later, torch.where(mask, weight, 0.0))
            grown = mask & ~before.masks[step][name]
            for old, new in zip(before.moments[step][name], before.moments[step + 1][name], strict=True):
                assert torch.equal(new, torch.where(mask, old, 0.0))
                assert not new[grown].any()
            gradient = before.gradients[step + 1][name][grown]
            if step + 2 < STEPS and step + 2 not in UPDATES:
                assert (before.weights[step + 2][name][grown] != 0)[gradient != 0].all()


@GROWTHS
@RECIPES
@pytest.mark.parametrize("steps", [8, 17])
def test_killed_in_mid_epoch_it_ends_bit_equal(tmp_path, grow, recipe, steps):
    class Kill(Observer):
        left = 0

        def after_step(self, state):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    method, checkpoint, kill = replace(RIGL, grow=grow), Checkpoint(tmp_path / "going.pt", every=0.0), Kill()
    undisturbed, history, _, seen = sparse_training(method, recipe, more=[Kill()])
    kill.left = steps
    with pytest.raises(KeyboardInterrupt):
        sparse_training(method, recipe, checkpoint=checkpoint, more=[kill])
    task = replace(toy_task(), recipe=recipe)
    mask, model = seen.masks[0], task.build(0)
    regrowing = MovingRegrowth(method, mask, 0)
    observers = [Look(), regrowing, Look(), Exact(), Kill()]
    again = fit(task, model, recipe, seed=0, attached=mask, observers=observers, checkpoint=checkpoint)
    assert regrowing.mask == seen.masks[-1]
    assert all(torch.equal(value, undisturbed.state_dict()[name]) for name, value in model.state_dict().items())
    assert [row["train_loss"] for row in again.history] == [row["train_loss"] for row in history]


@GROWTHS
@pytest.mark.parametrize("rewind", ["end", "init"])
def test_the_laws_hold_where_the_mask_moves(grow, rewind):
    check_method(tb.methods.RigL(density=0.3, every="2it", grow=grow, rewind=rewind))


def test_a_method_that_regrows_and_does_not_say_so_breaks_the_law():
    class Silent(tb.methods.RigL):
        regrow = False

    with pytest.raises(LawBroken) as caught:
        check_method(Silent(density=0.3, every="2it"))
    assert caught.value.law == "nested"


def test_the_ticket_is_the_trained_network_and_its_accuracy_that_of_the_search():
    task = replace(toy_task(), recipe=SGD)
    ticket = tb.find(task, RIGL)
    trained = tb.train(task, ticket)
    assert trained.history == ()
    assert trained.cost.samples_backward == 0
    assert trained.validation == ticket.provenance.before
    assert all(torch.equal(value, ticket.start.tensors[name]) for name, value in trained.model.state_dict().items())
    assert ticket.start.epochs_spent == EPOCHS
    assert budget_gap(ticket, task) == 0


def test_the_last_mask_rewound_trains_from_the_initialisation():
    task = replace(toy_task(), recipe=SGD)
    ticket, trained = tb.find(task, replace(RIGL, rewind="init")), tb.find(task, RIGL)
    assert ticket.mask == trained.mask
    assert isinstance(ticket.start, tb.tickets.Seed)
    assert budget_gap(ticket, task) == 0
    assert len(tb.train(task, ticket).history) == EPOCHS


def test_without_training_left_its_accuracy_is_not_known():
    task = replace(toy_task(), recipe=replace(SGD, start=f"{EPOCHS}ep"))
    assert tb.find(task, RIGL).provenance.before is None


def test_its_controls_and_dense_train_as_long_as_the_search():
    task = replace(toy_task(), recipe=SGD)
    study = tb.compare(task, [RIGL], seeds=1, controls=("fresh-init", "random"))
    epochs = {result.arm: len(result.history) for result in study.results}
    name = "rigl(every=3it)"
    assert epochs == {name: 0, f"{name} · fresh-init": EPOCHS, f"{name} · random": EPOCHS, "dense": EPOCHS}
    assert all(result.epochs == EPOCHS for result in study.results)


@pytest.mark.parametrize("scope", ["layerwise", {"0.weight": 0.5, "3.weight": 0.25, "8.weight": 0.1}])
def test_layers_keep_the_counts_of_any_scope(scope):
    density = 0.25 if scope == "layerwise" else 120 / 732
    ticket = tb.find(toy_task(), tb.methods.RigL(density=density, every="2it", scope=scope))
    assert ticket.mask.counts == {"0.weight": 9 if scope == "layerwise" else 18, **_rest(scope)}


def _rest(scope):
    return {"3.weight": 54, "8.weight": 120 if scope == "layerwise" else 48}


def test_a_frozen_layer_keeps_its_mask():
    model = toy_network()
    model[3].weight.requires_grad = False
    _, _, before, after = sparse_training(model=model)
    assert before.masks[0]["3.weight"].equal(after.masks[-1]["3.weight"])
    assert not before.masks[0]["8.weight"].equal(after.masks[-1]["8.weight"])


def test_without_a_step_to_move_at_it_says_so():
    with pytest.warns(SearchWarning, match="9 steps of training can change it, and every is 100it"):
        ticket = tb.find(toy_task(), tb.method("rigl", density=0.3))
    assert ticket.mask == tb.find(toy_task(), tb.OneShot(0.3, tb.scores.Random(), scope="erk", floor=1)).mask
    late = replace(toy_task(), recipe=replace(toy_task().recipe, start="1ep"))
    with pytest.warns(SearchWarning, match="3 steps of training can change it, and every is 5it"):
        tb.find(late, tb.methods.RigL(density=0.3, every="5it"))
    assert tb.find(late, tb.methods.RigL(density=0.3, every="8it")).mask != ticket.mask


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"granularity": tb.Channels()}, "units of kind channel cannot be grown yet; leave the granularity at weight"),
        ({"granularity": tb.structure.NM(2, 4), "density": 0.5}, "units of kind 2:4 cannot be grown yet"),
        ({"every": "0ep"}, "give at least one step"),
        ({"every": "often"}, "not a point in training"),
        ({"share": 0.0}, "share is 0.0"),
        ({"until": 1.5}, "until is 1.5"),
        ({"rewind": "1ep"}, r"no RigL with rewind '1ep' \(known: end, init\)"),
    ],
)
def test_what_cannot_be_is_refused(settings, says):
    with pytest.raises(tb.TombolaError, match=says):
        tb.methods.RigL(**settings)
