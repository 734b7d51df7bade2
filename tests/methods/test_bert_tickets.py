"""Tickets in BERT: what survives while the network stays good, rounds from pretrained weights, coefficients."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import tombola as tb
from networks import short_transformer
from tombola.connectivity import carry
from tombola.methods.coefficients import CoefficientModel, Recorder
from tombola.methods.good_networks import Judge
from tombola.methods.masked_model import MaskedTask
from tombola.structure import TransformerParts, head_parameters
from tombola.testing import toy_task
from tombola.tickets import Mask, Seed, Values, tensors_of
from tombola.training import Run
from tombola.zoo.vit import VisionTransformer


class Pretrained(VisionTransformer):
    """A body whose weights are the same for each seed, and a new head."""

    def __init__(self, classes: int = 5) -> None:
        head = nn.Linear(32, classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            super().__init__((1, 8, 8), classes, heads=2, depth=2)
        self.head = head


TASK = toy_task(Pretrained, epochs=1)


def found(method, task=TASK, seed=0, run=None):
    return tb.find(task, method, seed=seed, run=run, progress=False)


# What survives


@pytest.fixture(scope="module")
def parts():
    """A search in which all is good, and so goes on until one unit is left."""
    run = Run(0)
    ticket = found(tb.method("bert-parts", good=0.0, share=0.26), run=run)
    return ticket, next(row["steps"] for row in run.history if row["stage"] == "parts")


def test_parts_go_together_first_and_then_alone(parts):
    ticket, steps = parts
    counts = [(row["head"], row["mlp"]) for row in steps]
    assert counts[:3] == [(4, 2), (3, 1), (2, 0)]
    assert sum(counts[-1]) >= 1
    assert isinstance(ticket.start, Seed)
    assert ticket.provenance.whole == steps[0]["validation_metric"]
    assert ticket.provenance.before == steps[-1]["validation_metric"]
    assert tb.train(TASK, ticket).plan is not None


def test_a_step_after_which_it_is_no_longer_good_is_taken_back(monkeypatch):
    readings = iter([1.0, 1.0, 0.5, 0.95, 0.5, 0.5])
    monkeypatch.setattr(Judge, "metric", lambda judge, model: next(readings))
    run = Run(0)
    ticket = found(tb.method("bert-parts"), run=run)
    steps = next(row["steps"] for row in run.history if row["stage"] == "parts")
    assert [(row["head"], row["mlp"]) for row in steps] == [(4, 2), (3, 1), (2, 0), (2, 1), (1, 1), (2, 0)]
    units = TransformerParts().units(TASK.build(0), Run(0).probe(TASK))
    kept = units.kept(ticket.removed)
    assert (kept.total_kept - kept.kept("mlp"), kept.kept("mlp")) == (2, 1)
    assert (ticket.provenance.whole, ticket.provenance.before) == (1.0, 0.95)


def test_bad_parts_are_those_that_went_first_and_as_many(parts):
    good, _ = parts
    method = tb.method("bert-parts", good=0.0, share=0.26)
    units = TransformerParts().units(TASK.build(0), Run(0).probe(TASK))
    kept = {keep: units.kept(found(replace(method, keep=keep)).removed) for keep in ("good", "bad")}
    assert kept["good"] == units.kept(good.removed)
    assert kept["bad"].total_kept == kept["good"].total_kept
    overlap = kept["good"] & kept["bad"]
    assert overlap.total_kept == max(0, 2 * kept["good"].total_kept - kept["good"].size)
    random = found(replace(method, keep="random"))
    assert random.digest != good.digest


def test_fine_tuned_parts_are_ready_and_not_trained():
    ticket = found(tb.method("bert-parts", weights="fine-tuned"))
    assert isinstance(ticket.start, Values)
    trained = tb.train(TASK, ticket)
    assert trained.history == ()


def test_an_error_may_grow_by_as_much_as_a_score_may_fall():
    def rmse(outputs, targets):
        return torch.zeros(())

    score, error = (Judge(task, Run(0), TASK.forward) for task in (TASK, replace(TASK, metric=rmse)))
    assert [score.is_good(own, 0.8, 0.9) for own in (0.73, 0.71)] == [True, False]
    assert [error.is_good(own, 0.8, 0.9) for own in (0.87, 0.89)] == [True, False]


def test_weights_go_by_tenths_of_the_original_or_of_what_remains():
    original = tb.method("bert-weights", share=0.25, density=0.3)
    assert original.densities == [0.75, 0.5]
    assert replace(original, of="remaining").densities == [0.75, 0.5625, 0.421875, 0.31640625]
    good, bad = (found(replace(original, good=0.0, keep=keep)) for keep in ("good", "bad"))
    assert good.mask.density == bad.mask.density == 0.5
    assert good.mask & bad.mask == good.mask & ~good.mask
    assert {"layers.0.attention.out.bias", "layers.1.mlp.fc1.bias"} <= set(good.mask)
    assert not {"layers.0.mlp.fc2.bias", "head.weight", "positions"} & set(good.mask)


def test_without_validation_samples_the_search_is_refused():
    data = {**TASK.data, "validation": (torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.long))}
    with pytest.raises(tb.TombolaError, match="validation split can do without"):
        found(tb.method("bert-parts"), replace(TASK, data=data))


# Rounds from pretrained weights


def test_rounds_remove_as_many_of_the_original_weights_and_no_head():
    method = tb.method("bert-imp", density=0.7)
    assert method.levels(None) == pytest.approx([0.9, 0.8, 0.7])
    ticket = found(method)
    assert "head.weight" not in ticket.mask
    assert ticket.mask.density == pytest.approx(0.7, abs=1e-4)


class Begun:
    """The heads with which rounds begin, and their learning rates."""

    def __init__(self, method) -> None:
        self.heads, self.rates = [], []
        outer = self

        class Watched(Run):
            def stage(self, name, task, model, **options):
                outer.heads.append(model.head.weight.detach().clone())
                done = super().stage(name, task, model, **options)
                outer.rates.append(done.history[-1]["lr"])
                return done

        self.ticket = found(method, replace(TASK, recipe=replace(TASK.recipe, schedule="linear")), run=Watched(0))


def test_the_head_is_rewound_or_carried_and_the_rate_falls_in_each_round_or_over_all():
    method = tb.method("bert-imp", density=0.8, count=2)
    plain, code = Begun(method), Begun(replace(method, head="carried", decay="all"))
    assert plain.heads[0].equal(plain.heads[1])
    assert not code.heads[0].equal(code.heads[1])
    assert code.ticket.start == plain.ticket.start
    assert code.rates[0] == code.rates[1] > plain.rates[0]


def test_what_does_not_go_with_another_rewinding_or_an_own_loop_is_refused():
    with pytest.raises(tb.TombolaError, match="ways to rewind to the first values"):
        tb.method("bert-imp", head="carried", rewind="learning-rate")
    with pytest.raises(tb.TombolaError, match="need to know the training"):
        tb.method("bert-imp", decay="all").rounds(Pretrained())


# Coefficients


@pytest.mark.parametrize(("record", "steps"), [("after", 2), ("before", 1)])
def test_coefficients_are_read_after_the_step_or_before_it_and_the_search_ends_there(record, steps):
    recorded = []
    for draw, kind in ((2 / 6, record), (steps / 6, "after")):
        model = TASK.build(0)
        units = TransformerParts(("head", "neuron")).units(model, Run(0).probe(TASK))
        gated = CoefficientModel(TASK, model, units.gates)
        recorder = Recorder(gated, draw, 0.01, kind)
        fit = Run(0).stage("search", MaskedTask(TASK), gated, observers=[recorder])
        assert fit.cost.dense_epochs == pytest.approx(draw, abs=0.05)
        recorded.append(recorder.recorded)
    assert all(recorded[0][name].equal(recorded[1][name]) for name in recorded[0])
    assert any((own != 1).any() for own in recorded[0].values())


def test_each_layer_keeps_its_share_of_heads_and_all_together_theirs_of_neurons():
    ticket = found(tb.method("early-bert", density=0.4, heads=0.5))
    units = TransformerParts(("head", "neuron")).units(TASK.build(0), Run(0).probe(TASK))
    kept = units.kept(ticket.removed)
    assert [kept.kept(name) for name in units.kinds["head"]] == [1, 1]
    assert sum(kept.kept(name) for name in units.kinds["neuron"]) == round(0.4 * 256)
    assert ticket.recipe == {"lr": 0.1, "epochs": 1}
    assert ticket.provenance.cost["dense_epochs"] < 0.25
    assert tb.train(TASK, ticket).epochs == 1


@pytest.mark.filterwarnings("ignore::tombola.tickets.TieWarning")
def test_coefficients_that_have_not_moved_take_no_layer_away():
    task = replace(TASK, recipe=replace(TASK.recipe, lr=0.0))
    ticket = found(tb.method("early-bert", density=0.1), task)
    units = TransformerParts(("head", "neuron")).units(TASK.build(0), Run(0).probe(TASK))
    assert not units.kept(ticket.removed).collapsed


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"draw": 0.0}, "above 0"), ({"heads": 1.5}, "share to keep"), ({"penalty": -1.0}, "at least 0")],
)
def test_settings_of_early_bert_out_of_range_are_refused(settings, says):
    with pytest.raises(tb.TombolaError, match=says):
        tb.method("early-bert", **settings)


def test_a_search_longer_than_the_recipe_is_refused():
    with pytest.raises(tb.TombolaError, match="drawn after 3 epochs"):
        found(tb.method("early-bert", draw=3.0))


# Other tasks


def test_a_ticket_goes_to_another_task_with_its_body_and_a_new_head():
    other = toy_task(partial(Pretrained, 9), epochs=1)
    for name, settings in (("bert-imp", {"count": 1}), ("bert-parts", {}), ("imp-warm", {"count": 1})):
        ticket = found(tb.method(name, **settings))
        there = carry(TASK, ticket, other)
        assert not set(head_parameters(other.build(0))) & set(there.mask)
        assert there.mask == Mask.of({own: ticket.mask[own] for own in there.mask})
        assert there.removed == ticket.removed
        assert "start" not in there.recipe
        assert isinstance(there.start, Seed) == isinstance(ticket.start, Seed)
        if isinstance(there.start, Values):
            kept = set(ticket.start.tensors) - set(head_parameters(TASK.build(0)))
            assert all(there.start.tensors[own].equal(ticket.start.tensors[own]) for own in kept)
        assert tb.train(other, there).model.head.out_features == 9


def test_a_network_drawn_by_its_seed_takes_its_body_along():
    drawn, other = toy_task(short_transformer, 1), toy_task(partial(VisionTransformer, (1, 8, 8), 9, 2, 2), 1)
    ticket = found(tb.method("bert-imp", count=1), drawn, seed=3)
    there = carry(drawn, ticket, other, seed=4)
    assert isinstance(there.start, Values)
    assert there.start.tensors["layers.0.mlp.fc1.weight"].equal(tensors_of(drawn.build(3))["layers.0.mlp.fc1.weight"])
    assert there.start.tensors["head.weight"].equal(tensors_of(other.build(4))["head.weight"])


def test_networks_that_differ_beside_the_head_are_refused():
    other = toy_task(partial(VisionTransformer, (1, 8, 8), 5, 2, 3), 1)
    with pytest.raises(tb.TombolaError, match=r"differ in 'layers\.2\..*not of the head"):
        carry(TASK, found(tb.method("bert-imp", count=1)), other)
