"""A test that looks after each seed errs no more often over all its looks than it says; how many seeds more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from tombola import TombolaError
from tombola.evidence import MANDATORY, EachSeed, OneLook, judge
from tombola.evidence.forecast import forecast
from tombola.evidence.ruling import Requirement


def passed(looks: EachSeed, alpha: float, mean: float, runs: int) -> np.ndarray:
    """At each look, the share of runs whose t statistic passed a boundary by then."""
    rng = np.random.default_rng(0)
    seeds = mean + rng.standard_normal((runs, looks.most))
    sums, squares = seeds.cumsum(1), (seeds**2).cumsum(1)
    ever, shares = np.zeros(runs, bool), []
    for count in range(3, looks.most + 1):
        average = sums[:, count - 1] / count
        spread = np.sqrt((squares[:, count - 1] - count * average**2) / (count - 1))
        ever |= average > looks.critical(alpha, count) * spread / np.sqrt(count)
        shares.append(ever.mean())
    return np.array(shares)


@pytest.mark.parametrize(("most", "alpha"), [(20, 0.05), (20, 0.0125), (8, 0.025), (3, 0.05)])
def test_the_error_is_spent_evenly_over_the_looks_and_is_alpha_in_all(most, alpha):
    shares = passed(EachSeed(most), alpha, 0.0, 100_000)
    due = alpha * np.arange(1, most - 1) / (most - 2)
    assert shares == pytest.approx(due, abs=4 * np.sqrt(alpha / 100_000), rel=0.02)


def test_one_look_is_students_and_more_looks_ask_for_more():
    assert OneLook().critical(0.025, 5) == pytest.approx(student.isf(0.025, 4))
    assert EachSeed(3).critical(0.025, 3) == pytest.approx(student.isf(0.025, 2), rel=0.01)
    for count in (3, 5, 20):
        assert EachSeed(20).critical(0.025, count) > OneLook().critical(0.025, count)
    assert EachSeed(20).critical(0.025, 2) == EachSeed(20).critical(0.025, 21) == np.inf


@pytest.mark.parametrize("most", [2, 0, 101])
def test_the_most_seeds_must_make_sense(most):
    with pytest.raises(TombolaError, match="give from 3 to 100"):
        EachSeed(most)


REQUIREMENTS = [
    Requirement.against_dense(0.005),
    *(Requirement.against_control(name, 0.005) for name in MANDATORY),
]


def differences(count: int, means: tuple[float, ...], spread: float) -> np.ndarray:
    return np.random.default_rng(1).normal(means, spread, (count, 4))


def test_a_forecast_needs_more_seeds_for_more_noise():
    near, far = (
        forecast(differences(5, (0.0, 0.03, 0.03, 0.03), spread), REQUIREMENTS, OneLook()) for spread in (0.008, 0.03)
    )
    assert near.seeds < far.seeds
    assert not near.futile


def test_a_ticket_on_the_boundary_is_futile():
    rows = differences(18, (-0.005, 0.05, 0.05, 0.05), 0.004)
    rows[:, 0] += -0.005 - rows[:, 0].mean()
    found = forecast(rows, REQUIREMENTS, EachSeed(20), 20)
    assert found.seeds is None
    assert found.chance < 0.2
    assert "more seeds would decide it with a chance of" in str(found)


def test_a_forecast_keeps_what_it_says():
    """Of runs that go on, about half are decided by the forecast's median."""
    rng, met = np.random.default_rng(3), []
    for _ in range(60):
        rows = rng.normal((0.0, 0.02, 0.02, 0.02), 0.008, (40, 4))
        found = forecast(rows[:5], REQUIREMENTS, EachSeed(40), 40)
        if found.seeds is None:
            continue
        arms = {"ticket": np.full(5 + found.seeds, 0.9)} | {
            name: 0.9 - rows[: 5 + found.seeds, place] for place, name in enumerate(("dense", *MANDATORY))
        }
        verdicts = [
            judge("x", 0.1, {n: v[:count] for n, v in arms.items()}, range(count), looks=EachSeed(40)).wins
            for count in {5 + found.seeds}
        ]
        met.append(any(wins is not None for wins in verdicts))
    assert len(met) > 30
    assert 0.25 < np.mean(met) < 0.85


def test_before_the_third_seed_nothing_is_decided():
    arms = {"ticket": [0.9, 0.91], "dense": [0.9, 0.91]} | {name: [0.1, 0.11] for name in MANDATORY}
    found = judge("x", 0.1, arms, (0, 1), looks=EachSeed(20))
    assert found.wins is None
    assert found.more is None
    assert "2 seeds are too few" in str(found)
