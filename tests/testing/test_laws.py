"""The laws of design, over every score, method and scope that there is; and that broken ones are caught."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import ClassVar

import pytest
import torch
from torch import nn

import tombola as tb
from kinds import WEIGHT_SCORES
from networks import short_network, short_resnet, short_transformer, uneven_resnet
from tombola import zoo
from tombola.registry import METHODS
from tombola.structure import Slice, UnitGroup, Units, prunable
from tombola.testing import LawBroken, check_method, check_score, toy_network, toy_task
from tombola.tickets import Mask, Seed, Ticket, Values, digest_of, put_values, select, tensors_of

SCOPES = ["global", "layerwise", "erk", "smart-ratio", "smart-ratio-vgg"]


@pytest.mark.parametrize("name", WEIGHT_SCORES)
def test_every_score_keeps_the_laws(name):
    check_score(WEIGHT_SCORES[name])


def without_view(model, batches, loss):
    """A score that takes none of the keyword arguments that every score gets."""
    return {name: weight.square() for name, weight in tb.scores.magnitude(model).items()}


def drawn_globally(model, batches=(), loss=None, **view):
    """A score that draws from the global random state."""
    return {name: torch.rand_like(weight) for name, weight in tb.scores.magnitude(model, **view).items()}


@pytest.mark.parametrize(
    "search",
    [
        check_score,
        lambda score: tb.find(toy_task(), tb.OneShot(density=0.5, score=score)),
        lambda score: list(tb.Iterative(density=0.5, score=score, count=1).rounds(toy_network())),
    ],
)
def test_a_score_that_does_not_take_the_view_is_told_what_to_take(search):
    with pytest.raises(tb.TombolaError, match=r"'without_view' must accept .*View lists \(mask, .*seed\).*\*\*view"):
        search(without_view)


def test_the_law_of_random_state_says_how_to_keep_it():
    with pytest.raises(LawBroken, match=r"torch\.Generator\(\)\.manual_seed\(seed\)"):
        check_score(drawn_globally)


tiny_two_layer = partial(zoo.MODELS["two-layer"], (1, 8, 8), 5, 0.05)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore::tombola.methods.SearchWarning")
def test_every_method_keeps_the_laws(name):
    networks = {"layer-": short_resnet, "filter-": short_resnet, "-transformer": short_transformer}
    networks |= {"loft": uneven_resnet, "bert": partial(short_transformer, 1)}
    networks |= {"greedy-neurons": tiny_two_layer, "grasp-it": toy_network}
    network = next((own for part, own in networks.items() if part in name), short_network)
    rounds = {"count": 2} if name == "bert-imp" else {}
    check_method(tb.method(name, density=0.3, **rounds), network)


AT_SCOPES = [(tb.scores.Snip(), scope) for scope in SCOPES]
AT_SCOPES += [
    pytest.param(score, scope, marks=pytest.mark.slow)
    for score in (tb.scores.SynFlow(), tb.scores.Random())
    for scope in SCOPES
]


@pytest.mark.parametrize(("score", "scope"), AT_SCOPES, ids=lambda own: getattr(own, "name", own))
def test_one_shot_keeps_the_laws_at_every_scope(scope, score):
    check_method(tb.OneShot(density=0.2, score=score, scope=scope, rounds=2, floor=1))


SCHEDULES = ["exponential", "linear", "cubic"]
REWINDS = ["init", "fresh", "7it", "learning-rate", "fine-tune"]
EACH_ONCE = [*zip(SCHEDULES * 2, REWINDS, strict=False)]


@pytest.mark.parametrize(
    ("schedule", "rewind"),
    [pytest.param(*pair, marks=[] if pair in EACH_ONCE else pytest.mark.slow) for pair in product(SCHEDULES, REWINDS)],
)
def test_iterative_keeps_the_laws_at_every_schedule_and_rewind(schedule, rewind):
    check_method(tb.Iterative(density=0.3, count=2, schedule=schedule, rewind=rewind, scope="layerwise"), short_network)


def test_explicit_densities_hold_layer_by_layer_through_rounds():
    scope = {"0.weight": 0.5, "3.weight": 0.25, "8.weight": 0.1}
    kept = 18 + 54 + 48
    method = tb.OneShot(density=kept / 732, score=tb.scores.Magnitude(), scope=scope, rounds=3)
    check_method(method)
    ticket = tb.find(toy_task(), method)
    assert ticket.mask.counts == {"0.weight": 18, "3.weight": 54, "8.weight": 48}


@dataclass(frozen=True)
class Filters:
    """A third party's granularity: filters of the toy network's first convolution."""

    name: ClassVar[str] = "filter"

    def check(self, density: float, scope) -> None:
        return

    def units(self, model: nn.Module, probe) -> Units:
        rows = tuple((unit,) for unit in range(4))
        slices = (
            Slice("0.weight", 0, rows),
            Slice("0.bias", 0, rows),
            Slice("1.weight", 0, rows),
            Slice("1.bias", 0, rows),
        )
        return Units((UnitGroup("0", 4, slices),))


@pytest.mark.parametrize("method", [tb.OneShot(0.5, granularity=Filters()), tb.Iterative(0.5, granularity=Filters())])
def test_methods_keep_the_laws_at_another_granularity(method):
    check_method(method)
    ticket = tb.find(toy_task(), method)
    (removed,) = ticket.removed.values()
    assert len(removed) == 2
    assert not ticket.mask["1.bias"][list(removed)].any()
    assert ticket.mask.counts["0.weight"] == 18


def third_party_score(model, batches=(), loss=None, **view):
    weights = tb.scores.magnitude(model, **view)
    return {name: weight.square() for name, weight in weights.items()}


def test_a_third_partys_score_passes_and_runs():
    check_score(third_party_score)
    check_method(tb.OneShot(density=0.2, score=third_party_score))


@dataclass(frozen=True)
class Toy:
    """A third party's method: keep the largest initial weights; `flaw` breaks one law."""

    density: float = 0.3
    flaw: str = ""
    granularity: ClassVar = tb.structure.Weights()
    density_kind: ClassVar = "exact"

    def find(self, task, run):
        seed = 0 if self.flaw == "same seed" else run.seed
        model = task.build(seed)
        initial = Values(tensors_of(model), "init")
        density = self.density + (0.1 if self.flaw == "exact" else 0.0)
        early = select(tb.scores.magnitude(model), 0.6)
        for index, mask in enumerate([early, ~early if self.flaw == "nested" else early]):
            attached = mask
            run.stage(f"round-{index}", task, model, attached=attached)
            if self.flaw != "rewind":
                put_values(model, initial.tensors)
        if self.flaw == "costs":
            run.cost = replace(run.cost, samples_backward=1)
        if self.flaw == "unseeded":
            put_values(
                model,
                {
                    n: t + 1e-3 * float(os.urandom(1)[0] + 1) * t if t.is_floating_point() else t
                    for n, t in initial.tensors.items()
                },
            )
        if self.flaw == "resume" and run.folder is not None:
            density /= 2
        scores = tb.scores.magnitude(model)
        within = ~early if self.flaw == "nested" else early
        mask = select(scores, min(density, within.density), within=within)
        start = Seed(seed, digest_of(initial.tensors))
        if self.flaw == "unseeded":
            start = Values(tensors_of(model), "transformed")
        return Ticket(mask, start)


def test_a_third_partys_method_passes():
    check_method(Toy())


@pytest.mark.parametrize(
    ("flaw", "law"),
    [
        ("exact", "exact"),
        ("nested", "nested"),
        ("rewind", "rewind"),
        ("costs", "costs"),
        ("same seed", "same seed"),
        ("unseeded", "same seed"),
        ("resume", "resume"),
    ],
)
def test_a_method_with_a_flaw_fails_on_its_law(flaw, law):
    with pytest.raises(LawBroken) as caught:
        check_method(Toy(flaw=flaw))
    assert caught.value.law == law


def _leaves_gradients(model, batches, loss, **view):
    for inputs, targets in batches:
        loss(model(inputs), targets).backward()
    return {name: weight.grad.abs() for name, weight in prunable(model).items()}


def _draws_from_the_global_generator(model, batches, loss, **view):
    return {name: torch.rand(weight.shape) for name, weight in view.get("prunable", tb.Prunable())(model).items()}


def _moves_batch_norm(model, batches, loss, **view):
    model.train()
    for inputs, _ in batches:
        model(inputs)
    return tb.scores.magnitude(model, **view)


def _ignores_the_mask(model, batches, loss, *, mask=None, **view):
    return tb.scores.magnitude(model, **view)


def _forgets_a_layer(model, batches, loss, **view):
    return dict(list(tb.scores.magnitude(model, **view).items())[1:])


def _reads_memory_order(model, batches, loss, **view):
    order = {
        name: weight
        for name, weight in prunable(model).items()
        if name not in view.get("prunable", tb.Prunable()).exclude
    }
    return {name: torch.as_strided(w, (w.numel(),), (1,)).abs().view(w.shape) for name, w in order.items()}


def _scores_in_bf16(model, batches, loss, **view):
    scores = tb.scores.magnitude(model, **view)
    half = next(model.parameters()).dtype == torch.bfloat16
    return {name: score.bfloat16() if half else score for name, score in scores.items()}


def _scores_everything(model, batches, loss, *, prunable=None, **view):
    return tb.scores.magnitude(model, **view)


@pytest.mark.parametrize(
    ("score", "laws"),
    [
        (_leaves_gradients, {"pure"}),
        (_draws_from_the_global_generator, {"pure", "repeatable"}),
        (_moves_batch_norm, {"pure"}),
        (_ignores_the_mask, {"masked"}),
        (_forgets_a_layer, {"complete"}),
        (_reads_memory_order, {"masked", "layout", "chosen"}),
        (_scores_in_bf16, {"precision"}),
        (_scores_everything, {"chosen"}),
    ],
)
def test_a_score_with_a_flaw_fails_on_its_law(score, laws):
    with pytest.raises(LawBroken) as caught:
        check_score(score)
    assert caught.value.law in laws


def test_layer_collapse_is_seen_by_name_and_a_floor_prevents_it():
    scores = {"a": torch.rand(50) + 1, "b": torch.rand(50)}
    assert select(scores, 0.3).collapsed == ("b",)
    floored = select(scores, 0.3, floor=2)
    assert floored.collapsed == ()
    assert floored.total_kept == 30
    assert Mask.full({"a": (2,)}).collapsed == ()
