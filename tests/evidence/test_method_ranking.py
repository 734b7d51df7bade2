"""Methods against each other: who is told apart, over which seeds, and what the line says."""

from __future__ import annotations

import re

import pytest

import tombola as tb
from tombola.evidence import EachSeed, Measure, ranking
from tombola.report.ranking_tables import critical_difference_chart

NOISE = (0.0, 0.004, -0.003, 0.002, -0.004, 0.001, 0.003, -0.002, 0.0, 0.002, -0.001, 0.004)


def numbers(mean: float, seeds: int, by: int = 0) -> dict[int, float]:
    """A method's accuracies, of which each method has others about its mean."""
    return {seed: mean + NOISE[(seed * (1 + by) + by) % len(NOISE)] for seed in range(seeds)}


def test_each_pair_has_the_seeds_that_both_have():
    """One method was decided after three seeds, which would not do for the two that went on."""
    values = {"imp": numbers(0.90, 12), "snip": numbers(0.88, 12, 1), "random": numbers(0.60, 3, 2)}
    looked = ranking(values, dict.fromkeys(values), 0.005, looks=EachSeed(12))
    counts = {(pair.method, pair.comparison.against): len(pair.comparison.differences) for pair in looked.pairs}
    assert counts == {("imp", "snip"): 12, ("imp", "random"): 3, ("snip", "random"): 3}
    assert looked.seeds == (0, 1, 2)
    assert looked.summary == "accuracy over all densities: imp > snip > random"
    short = {method: {seed: own[seed] for seed in (0, 1, 2)} for method, own in values.items()}
    assert ranking(short, dict.fromkeys(values), 0.005, looks=EachSeed(12)).groups[0] == ("imp", "snip")


def test_the_line_claims_equivalence_only_where_it_was_shown():
    values = {"a": numbers(0.900, 12), "b": numbers(0.8995, 12, 0), "c": numbers(0.897, 3, 1), "d": numbers(0.5, 12)}
    made = ranking(values, dict.fromkeys(values), 0.005)
    by_pair = {(p.method, p.comparison.against): p.comparison.outcome for p in made.pairs}
    assert by_pair["b", "c"] == "undecided"
    assert "b, c > d" in made.summary
    same = ranking({"a": numbers(0.9, 12), "b": numbers(0.9, 12, 1)}, {"a": None, "b": None}, 0.005)
    assert same.summary == f"accuracy over all densities: {same.places[0].method} ≈ {same.places[1].method}"


@pytest.mark.parametrize("spread", [0.0, 0.002, 0.004, 0.008, 0.02])
def test_no_sign_stands_between_methods_that_share_a_letter(spread):
    values = {name: numbers(0.9 - place * spread, 6, place) for place, name in enumerate("abcde")}
    made = ranking(values, dict.fromkeys(values), 0.01)
    letters = {place.method: set(place.groups) for place in made.places}
    before, *behind = made.summary.partition(": ")[2].split(" > ")
    for part in behind:
        assert not set.union(*(letters[name] for name in re.findall(r"\w", before))) & set.union(
            *(letters[name] for name in re.findall(r"\w", part))
        )
        before += part
    assert behind if spread == 0.02 else not behind or spread == 0.008


def test_a_pair_puts_first_what_is_better_over_its_own_seeds():
    """Over the seeds that all have, b leads; over the twelve that a and b share, a does."""
    a, b = numbers(0.9, 12), numbers(0.8, 12, 1)
    values = {"a": a | {0: 0.7, 1: 0.7, 2: 0.7}, "b": b, "c": numbers(0.1, 3, 2)}
    made = ranking(values, dict.fromkeys(values), 0.005)
    assert [place.method for place in made.places] == ["b", "a", "c"]
    assert made.pairs[0].method == "a"
    assert made.pairs[0].comparison.mean > 0


def test_lower_is_better_turns_the_order_round_and_no_shared_seed_is_refused():
    rmse = Measure("rmse", lower=True, share=False)
    values = {"a": numbers(0.9, 5), "b": numbers(0.5, 5, 1)}
    assert ranking(values, dict.fromkeys(values), 0.01, measure=rmse).summary == "rmse over all densities: b > a"
    with pytest.raises(tb.TombolaError, match="two methods with a seed in common"):
        ranking({"a": {0: 0.5}, "b": {1: 0.5}}, {}, 0.01)


def test_the_picture_has_a_row_for_each_method_and_a_bar_for_each_group():
    values = {"a": numbers(0.9, 5), "b": numbers(0.895, 5, 1), "c": numbers(0.5, 5, 2)}
    drawn = critical_difference_chart(ranking(values, dict.fromkeys(values), 0.005)).to_dict()
    rows = [layer["data"]["values"] for layer in drawn["layer"]]
    assert [row["method"] for row in rows[1]] == ["a", "b", "c"]
    assert [(bar["first"], bar["last"]) for bar in rows[2]] == [("a", "b")]
    assert [row["method"] for row in rows[3]] == ["a", "b"]
