"""Paired statistics agree with statsmodels, and the verdict says no more than they allow."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from typing import get_args

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from tombola import TombolaError, Verdict
from tombola.evidence import (
    MANDATORY,
    Measure,
    deciding_interval,
    hardest_control,
    holm,
    interval,
    judge,
    paired_comparison,
)
from tombola.evidence.statistics import Outcome
from tombola.files import read_as

CASES = [(seed, count, sd, shift) for seed in range(4) for count in (2, 3, 5, 20) for sd, shift in
         ((0.002, 0.0), (0.002, 0.003), (0.01, -0.01), (0.01, 0.003), (0.05, 0.1))]  # fmt: skip


def arms(seed: int, count: int, sd: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, count, round(1e5 * sd)])
    other = 0.8 + 0.05 * rng.standard_normal(count)
    return other + shift + sd * rng.standard_normal(count), other


@pytest.mark.parametrize(("seed", "count", "sd", "shift"), CASES)
def test_a_comparison_is_the_paired_t_test_of_statsmodels(seed, count, sd, shift):
    mine, other = arms(seed, count, sd, shift)
    found, paired = paired_comparison(mine.tolist(), other.tolist(), "x"), DescrStatsW(mine - other)
    assert found.mean == pytest.approx(paired.mean)
    assert (found.low, found.high) == pytest.approx(paired.tconfint_mean(0.05))
    assert (found.low90, found.high90) == pytest.approx(paired.tconfint_mean(0.10))
    assert found.p == pytest.approx(paired.ttest_mean(0)[1], rel=1e-6, abs=1e-12)
    if found.p < 0.05:
        assert found.outcome == ("better" if paired.mean > 0 else "worse")
    else:
        p, (_, not_worse, _), (_, not_better, _) = ttost_paired(mine, other, -0.005, 0.005)
        words = {(True, True): "equivalent", (True, False): "not worse", (False, True): "not better"}
        assert found.outcome == words.get((not_worse < 0.05, not_better < 0.05), "undecided")
        assert (found.outcome == "equivalent") == (p < 0.05)


@pytest.mark.parametrize("case", CASES[::3])
def test_where_lower_is_better_words_are_turned_round(case):
    mine, other = (values.tolist() for values in arms(*case))
    turned = {"better": "worse", "worse": "better", "not worse": "not better", "not better": "not worse"}
    as_it_is = paired_comparison(mine, other, "x").outcome
    lower = paired_comparison(mine, other, "x", measure=Measure("error", lower=True))
    assert lower.outcome == turned.get(as_it_is, as_it_is)


@pytest.mark.parametrize("margin", [0.001, 0.02])
def test_the_margin_decides_what_is_equivalent(margin):
    for seed in range(30):
        mine, other = arms(seed, 6, 0.005, 0.0)
        found = paired_comparison(mine, other, "x", margin)
        tost = ttost_paired(mine, other, -margin, margin)[0] < 0.05
        assert (found.outcome == "equivalent") == (tost and not found.p < 0.05)


def test_all_outcomes_occur_among_the_cases():
    outcomes = {paired_comparison(*arms(*case), "x").outcome for case in CASES}
    assert outcomes == set(get_args(Outcome))


def test_the_correction_is_holms():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        comparisons = [
            paired_comparison(*arms(seed, 5, 0.01, rng.choice([0.0, 0.01, 0.02])), str(i))
            for i in range(rng.integers(1, 7))
        ]
        adjusted = holm(comparisons)
        assert [c.against for c in adjusted] == [c.against for c in comparisons]
        expected = multipletests([c.p for c in comparisons], method="holm")[1]
        assert [c.p for c in adjusted] == pytest.approx(list(expected))
        for before, after in zip(comparisons, adjusted, strict=True):
            assert (after.outcome in ("better", "worse")) == (after.p < 0.05)
            assert (not after.low <= 0 <= after.high) == (after.outcome in ("better", "worse"))  # one level for both
            assert after.low <= before.low
            assert after.high >= before.high
            assert before.outcome != "undecided" or after.outcome == "undecided"


@pytest.mark.parametrize("others", [0, 1, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_that_could_have_been_shown_is_shown(others, sign):
    """Whatever the other comparisons say: a mean just above `detectable` decides."""
    for seed in range(10):
        noise = np.random.default_rng(seed).standard_normal(5)
        noise = 0.01 * (noise - noise.mean())
        rest = [paired_comparison(*arms(seed, 5, 0.05, 0.0), str(i)) for i in range(others)]
        (own, *_) = holm([paired_comparison(noise, [0.0] * 5, "own"), *rest])
        assert own.outcome != "better"
        assert own.detectable > 0
        shifted = paired_comparison(noise + 1.001 * sign * own.detectable, [0.0] * 5, "own")
        assert holm([shifted, *rest])[0].outcome == ("better" if sign > 0 else "worse")
        if not others:
            assert paired_comparison(noise + 0.999 * own.detectable, [0.0] * 5, "own").outcome != "better"


@pytest.mark.parametrize(
    ("difference", "outcome"), [(0.0, "equivalent"), (0.1, "better"), (-0.1, "worse"), (1e-3, "better")]
)
def test_seeds_that_all_agree(difference, outcome):
    found = paired_comparison([0.5 + difference] * 4, [0.5] * 4, "x")
    assert found.outcome == outcome
    assert found.low == pytest.approx(difference)
    assert found.high == pytest.approx(difference)
    assert found.p == (1.0 if difference == 0 else 0.0)


@pytest.mark.parametrize("difference", [0.0, 0.3, -0.3])
def test_one_seed_decides_nothing(difference):
    found = paired_comparison([0.5 + difference], [0.5], "x")
    assert found.outcome == "undecided"
    assert found.detectable == math.inf
    assert holm([found])[0].outcome == "undecided"


def test_unpaired_arms_are_refused():
    with pytest.raises(TombolaError, match="3 and 2 results"):
        paired_comparison([1.0, 2.0, 3.0], [1.0, 2.0], "x")
    with pytest.raises(TombolaError, match="no seed to compare with 'shuffle'"):
        paired_comparison([], [], "shuffle")


def test_the_interval_of_one_arm_is_students():
    for seed in range(5):
        mine, _ = arms(seed, 6, 0.01, 0.0)
        assert interval(mine.tolist()) == pytest.approx((mine.mean(), *DescrStatsW(mine).tconfint_mean(0.05)))
    assert interval([0.7]) == (0.7, 0.7, 0.7)


# The verdict

SEEDS = (0, 1, 2, 3, 4)
STEADY = np.array([0.001, -0.001, 0.0005, -0.0005, 0.0])
NOISY = 40 * STEADY


def verdict(density: float = 0.1, **offsets) -> Verdict:
    """A verdict on a ticket at 90 % with each arm this much (points, noise) below it."""
    offsets = {"dense": (0, STEADY), **{name: (20, STEADY) for name in MANDATORY}} | {
        name.replace("_", "-"): value for name, value in offsets.items()
    }
    results = {n: list(0.9 - value[0] / 100 + value[1]) for n, value in offsets.items() if value is not None}
    return judge("imp", density, {"ticket": [0.9] * 5, **results}, SEEDS)


@pytest.mark.parametrize(
    ("wins", "offsets"),
    [
        (True, {}),
        (True, {"dense": (5, STEADY)}),
        (True, {"dense": (-0.2, STEADY)}),  # worse than dense, but by less than half a point
        (True, {"erk": (0, STEADY)}),  # not a mandatory control
        (True, {"narrow": (-3, STEADY)}),
        (False, {"dense": (-2, STEADY)}),
        (False, {"shuffle": (0, STEADY)}),
        (False, {"fresh_init": (0, STEADY)}),
        (False, {"random": (-5, STEADY)}),
        (False, {"random": (0, STEADY), "dense": (0, NOISY)}),
        (None, {"shuffle": (0, NOISY)}),
        (None, {"dense": (0, NOISY)}),
        (None, {"dense": (-0.5, STEADY)}),
        (None, {"shuffle": None}),
        (None, {"fresh_init": None}),
        (None, {"random": None}),
    ],
)
def test_a_ticket_wins_by_the_rule(wins, offsets):
    found = verdict(**offsets)
    assert found.wins is wins
    word = {True: "wins", False: "does not win", None: "is undecided"}[wins]
    assert re.search(rf"\b{word}\b", found.sentence)


def test_a_conjunction_needs_no_correction():
    """Each of three differences at p = 0.03 is better; that all are is claimed, and not that one of them is."""
    noise = STEADY * 10
    offset = 100 * noise.std(ddof=1) / math.sqrt(5) * 3.25
    found = verdict(**{name.replace("-", "_"): (offset, noise) for name in MANDATORY})
    assert [own.outcome for own in found.controls] == ["better"] * 3
    assert [own.outcome for own in holm(found.controls)] == ["not worse"] * 3
    assert found.wins is True


def test_any_of_several_may_rule_a_win_out_so_that_is_corrected():
    noise = STEADY * 10
    offset = 0.5 + 100 * noise.std(ddof=1) / math.sqrt(5) * 2.4  # p = 0.04, one-sided
    found = verdict(dense=(-offset, noise))
    assert found.dense.high90 < -found.margin
    assert found.wins is None
    assert "not surely by more than the margin" in found.reason
    assert verdict(dense=(-2 * offset, noise)).wins is False


def test_one_seed_makes_no_verdict():
    results = {"ticket": [0.9], "dense": [0.9], **{name: [0.1] for name in MANDATORY}}
    found = judge("imp", 0.1, results, [0])
    assert found.wins is None
    assert "one seed shows nothing" in found.sentence
    assert str(found).count("undecided: one seed shows nothing") == 4


def test_a_shuffled_mask_that_does_as_well_is_said_so():
    said = verdict(shuffle=(0, STEADY)).sentence
    assert re.search(r"equivalent to .*shuffle.*: the search found only how many weights each layer needs", said)


def test_weights_that_do_not_matter_are_said_so():
    said = verdict(fresh_init=(0, STEADY)).sentence
    assert re.search(r"equivalent to .*fresh-init.*: the weights that the ticket starts from do not matter", said)


def test_an_open_question_says_what_these_seeds_could_have_shown():
    found = verdict(shuffle=(0, NOISY))
    (shuffle,) = [own for own in found.controls if own.against == "shuffle"]
    assert f"differences above {100 * shuffle.detectable:.2f} points would show with" in found.sentence
    assert "equivalent" in found.sentence  # to dense
    assert "winning" not in found.sentence


def test_layer_collapse_is_named():
    results = {"ticket": [0.9, 0.9], "dense": [0.9, 0.9]}
    collapsed = judge("snip", 0.1, results, [0, 1], collapsed=("conv3.weight",))
    assert "conv3.weight" in collapsed.sentence
    assert "conv3.weight" in str(collapsed)


def test_a_printed_verdict_has_an_aligned_row_for_each_comparison():
    printed = verdict(shuffle=(0, NOISY), random=(-5, STEADY))
    headline, header, *rows, levels = str(printed).splitlines()
    assert (
        levels == "“At least” and “at most” are ends of 97.5 % intervals, as any of 4 comparisons may rule a win out."
    )
    assert printed.sentence.startswith(headline)
    comparisons = (printed.dense, *printed.controls)
    assert [row.split()[0] for row in rows] == [comparison.against for comparison in comparisons]
    for row, comparison in zip(rows, comparisons, strict=True):
        low, high, level = comparison.decisive
        numbers = [100 * value for value in (comparison.mean, low, high)]
        signed = re.findall(r"[+−]\d+\.\d\d", row)
        assert [float(number.replace("−", "-")) for number in signed] == pytest.approx(numbers, abs=0.005)
        assert row.index("[") == header.index("interval")
        assert f"] {100 * level:.3g} %" in row
        assert row[header.index("outcome") :].startswith(comparison.outcome)
    (shuffle,) = (row for row in rows if row.startswith("shuffle"))
    detectable = f"{100 * printed.controls[0].detectable:.2f} points would show with {len(printed.seeds)} seeds"
    assert f"undecided: only differences above {detectable}" in shuffle


@pytest.mark.parametrize(
    ("offsets", "level", "hardest"),
    [
        ({"shuffle": (1, STEADY), "random": (1.5, NOISY)}, 90, "random"),
        ({"dense": (1, STEADY), "fresh_init": (3, STEADY)}, 90, "fresh-init"),
        ({"dense": (-2, STEADY), "shuffle": (4, NOISY), "random": (3, STEADY)}, 97.5, "shuffle"),
        ({"random": (-5, STEADY), "shuffle": (0, STEADY)}, 97.5, "random"),
    ],
)
def test_a_verdict_is_shown_with_the_interval_and_the_control_that_decide(offsets, level, hardest):
    """The reason's figures are ends of the intervals beside it, whatever the outcomes' intervals are."""
    own = verdict(**offsets)
    low, high, chance = deciding_interval(own, own.dense)
    assert 100 * chance == pytest.approx(level)
    control = hardest_control(own, own.controls)
    ends = [low, high, *(end for one in own.controls for end in deciding_interval(own, one)[:2])]
    named = {f"{100 * abs(end):.2f}" for end in ends}
    said = re.findall(r"(?:at least|at most|at worst) (\d+\.\d\d)", own.reason)
    assert said or own.wins is None
    assert set(said) <= named
    assert control is not None
    assert control.against == hardest


REASONS = [
    ({}, r"at worst 0.\d\d points below dense, less than the margin of 0.5 and better than .* by at least "),
    ({"dense": (-2, STEADY)}, r"2.00 points below dense, at least 1.\d\d and so more than the margin of 0.5"),
    ({"dense": (-0.5, STEADY)}, r"worse than dense \(−0.50\), but not surely by more than the margin of 0.5 points"),
    (
        {"dense": (0, NOISY)},
        r"not surely within 0.5 points of dense \(\+0.00, perhaps \d.\d\d points below it\); about \d+ more",
    ),
    (
        {"random": (-5, STEADY)},
        r"not better than random by the margin of 0.5 \(−5.00, at least 4.\d\d points below it\): a random mask",
    ),
    ({"shuffle": (0, NOISY)}, r"not surely better than shuffle \(\+0.00\)"),
    ({"shuffle": None, "random": None}, r"the controls shuffle and random did not run"),
]


@pytest.mark.parametrize(("offsets", "said"), REASONS)
def test_a_verdict_gives_its_reasons_with_numbers(offsets, said):
    found = verdict(**offsets)
    for text in (found.sentence, str(found), found.summary):
        assert re.search(said, text, re.IGNORECASE)
        assert "-0" not in text  # there is one kind of minus


def test_intervals_end_at_what_is_possible():
    assert interval([0.98, 1.0], (0.0, 1.0))[2] == 1.0
    found = paired_comparison([1.0, 0.2], [0.1, 0.2], "x")
    assert (found.low, found.high) == (-1.0, 1.0)
    assert paired_comparison([1.0, 0.2], [0.1, 0.2], "x", measure=Measure("mse", share=False)).high > 5


def test_few_seeds_that_agree_on_a_grid_are_not_certain():
    """Three times one test sample of 100 less is what a mean of half a sample less gives in one case of eight."""
    ticket, dense = [0.95] * 3, [0.96] * 3
    assert paired_comparison(ticket, dense, "x").outcome == "worse"
    assert paired_comparison(ticket, dense, "x", step=0.01).outcome == "not better"


def test_a_measure_of_its_own_unit_has_a_margin_of_its_own():
    rmse = Measure("rmse", lower=True, share=False)
    rng = np.random.default_rng(0)
    dense = 12.0 + rng.standard_normal(8)
    arms = {"ticket": dense + 0.1 * rng.standard_normal(8), "dense": dense}
    arms |= {name: dense + 4 + 0.5 * rng.standard_normal(8) for name in MANDATORY}
    found = judge("imp", 0.1, {name: list(values) for name, values in arms.items()}, range(8), measure=rmse)
    assert found.margin == pytest.approx(dense.std(ddof=1))
    assert found.wins is True
    assert "points" not in str(found)
    assert judge("imp", 0.1, {**arms, "ticket": dense + 5}, range(8), measure=rmse).wins is False
    assert judge("imp", 0.1, arms | {"dense": arms["ticket"] - 0.1}, range(8), 0.01, measure=rmse).wins is False


def test_a_ticket_must_keep_up_in_further_measures():
    loss = Measure("loss", lower=True, share=False, margin=0.01)
    results = {"ticket": [0.9] * 5, "dense": list(0.9 + STEADY)} | {name: [0.5] * 5 for name in MANDATORY}
    losses = 0.3 + STEADY
    assert judge("imp", 0.1, results, SEEDS, also={loss: (losses, losses)}).wins is True
    worse = judge("imp", 0.1, results, SEEDS, also={loss: (losses + 0.2 + STEADY, losses)})
    assert worse.wins is False
    assert "0.2 above dense in loss, at least 0.199 and so more than the margin of 0.01" in worse.reason
    assert "dense, loss" in str(worse)


@pytest.mark.parametrize("margin", [-0.1, math.inf, math.nan])
def test_a_margin_is_a_number_of_at_least_zero(margin):
    with pytest.raises(TombolaError, match="margin"):
        judge("imp", 0.1, {"ticket": [0.9, 0.9], "dense": [0.9, 0.8]}, (0, 1), margin)


@pytest.mark.parametrize("offsets", [{}, {"shuffle": (0, NOISY)}, {"dense": (-2, STEADY)}])
def test_a_verdict_survives_json(offsets):
    found = verdict(**offsets)
    assert read_as(Verdict, json.loads(json.dumps(asdict(found)))) == found


def test_means_and_comparisons_are_of_the_given_numbers():
    found = verdict(density=0.0144, shuffle=(3, STEADY))
    assert found.means["shuffle"] == pytest.approx(0.87)
    assert found.dense.against == "dense"
    assert {own.against: round(own.mean, 6) for own in found.controls} == {
        "shuffle": 0.03,
        "fresh-init": 0.2,
        "random": 0.2,
    }
    assert "+3.00 points" in found.sentence
    assert "0.0144" in found.sentence
