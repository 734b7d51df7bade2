"""Functions that give a claim's figures: what they give for a seed, on tiny networks."""

from __future__ import annotations

import pytest

from tombola.papers.claims.hit_rates import SpiralChances
from tombola.papers.claims.truncated_searches import StartedTask, TruncatedSearches
from tombola.studies import Engine, Store
from tombola.testing import toy_task


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tombola.methods.score_freezing.SearchWarning")
def test_truncated_searches_start_from_one_network_and_give_what_they_name(tmp_path):
    take = TruncatedSearches("digits", "resnet20", 0.1, pretraining=1, epochs=1, retraining=1)
    figures = take(0, Engine(Store(tmp_path)), None)
    assert figures.keys() == take.units.keys()
    assert figures["r = 1, ticket epoch"] == 1  # five masks take longer, so that it is drawn after the last
    assert figures["epochs saved"] == 0
    assert 1 <= figures["r = 0.003, epochs to recover"] <= 2


def test_an_epoch_in_parts_has_the_batches_of_the_whole():
    task = toy_task()
    parts = StartedTask(task, {}, 2)
    whole = list(task.batches("train", 0, 1))
    halves = [batch for part in (2, 3) for batch in parts.batches("train", 0, part)]
    assert len(whole) == len(halves) > 1
    assert all((one[0] == other[0]).all() for one, other in zip(whole, halves, strict=True))


def test_a_network_starts_from_what_it_is_given_and_has_a_classifier_of_its_own():
    task = toy_task()
    values = {name: tensor.detach() + 1 for name, tensor in task.build(0).named_parameters()}
    kept = dict(list(values.items())[:1])
    built = dict(StartedTask(task, kept).build(0).named_parameters())
    assert all((built[name] == values[name]).all() == (name in kept) for name in values)


def test_tickets_on_the_spiral_are_counted_against_a_block_of_as_many_weights(tmp_path):
    take = SpiralChances(structure="2,2,2", methods=("random",), each=1, epochs=1)
    figures = [take(seed, Engine(Store(tmp_path)), None) for seed in range(3)]
    assert [own.keys() for own in figures] == [take.units.keys()] * 3
    assert set(take.units) == {"dense block of 14 weights", "tickets of random"}
    assert {unit.runs for unit in take.units.values()} == {2}
    assert all(0 <= value <= 1 for own in figures for value in own.values())
