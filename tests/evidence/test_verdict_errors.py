"""Verdicts with all their arms err in at most one of twenty, and find what is there: simulated."""

from __future__ import annotations

import pytest
from benchmarks.verdicts import BOUNDARIES, MET, MOST, Truth, rightly, simulated, wrongly

from tombola.evidence import ONE_LOOK, EachSeed, Looks

RUNS = 4000
LARGEST = 5 + 3 * (5 * 95 / RUNS) ** 0.5
"""5 %, and three standard errors of the simulation, in percent."""
EVERY = range(3, MOST + 1)


@pytest.mark.slow
@pytest.mark.parametrize("truth", [own for own in BOUNDARIES if not own.skewed], ids=lambda own: own.name)
@pytest.mark.parametrize(
    ("looks", "counts"),
    [(ONE_LOOK, range(3, 4)), (ONE_LOOK, range(5, 6)), (ONE_LOOK, range(10, 11)), (EachSeed(MOST), EVERY)],
    ids=["3", "5", "10", "each"],
)
def test_a_verdict_errs_in_at_most_one_of_twenty(truth: Truth, looks: Looks, counts: range):
    assert wrongly(truth, simulated(truth, looks, counts, RUNS)) <= LARGEST


@pytest.mark.slow
def test_one_look_taken_after_each_seed_errs_more():
    """The simulation sees what the sequential test is there for."""
    assert wrongly(BOUNDARIES[0], simulated(BOUNDARIES[0], ONE_LOOK, EVERY, RUNS)) > 2 * LARGEST


@pytest.mark.slow
@pytest.mark.parametrize("truth", MET, ids=lambda own: own.name)
def test_more_seeds_decide_more_and_stop_early_where_they_can(truth: Truth):
    found = simulated(truth, EachSeed(MOST), EVERY, RUNS)
    assert found.by[5] <= found.by[10] <= found.by[20]
    assert rightly(truth, found) > 10
    assert wrongly(truth, found) <= 5
    if found.by[20] > 0.8:
        assert found.seeds < 15


@pytest.mark.slow
def test_futility_saves_seeds_and_adds_no_error():
    hopeless = next(truth for truth in MET if truth.name == "snip at 20 %, digits")
    short, whole = (simulated(hopeless, EachSeed(MOST), EVERY, 150, futility=own) for own in (True, False))
    assert short.seeds < whole.seeds - 3
    assert wrongly(hopeless, short) <= wrongly(hopeless, whole)
