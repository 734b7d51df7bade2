"""Detection scores and calibration agree with scikit-learn and with what can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from tombola import TombolaError
from tombola.robust import auroc, calibration_error, energy, fpr95, msp


def scores(seed: int, inside: int, outside: int, levels: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Two overlapping samples, rounded to some levels so that many are tied, and their labels."""
    rng = np.random.default_rng(seed)
    both = np.round(rng.standard_normal(inside + outside) * levels + levels * (np.arange(inside + outside) < inside))
    labels = (np.arange(inside + outside) < inside).astype(int)
    return torch.tensor(both[:inside]), torch.tensor(both[inside:]), labels


CASES = [
    (seed, inside, outside, levels)
    for seed, (inside, outside) in enumerate([(1, 1), (7, 40), (100, 100), (999, 20)])
    for levels in (1, 5, 10**6)
]


@pytest.mark.parametrize(("seed", "inside", "outside", "levels"), CASES)
def test_auroc_and_fpr95_are_scikit_learns_ties_included(seed, inside, outside, levels):
    mine, other, labels = scores(seed, inside, outside, levels)
    both = torch.cat((mine, other)).numpy()
    assert auroc(mine, other) == pytest.approx(roc_auc_score(labels, both), abs=1e-12)
    false, true, _ = roc_curve(labels, both, drop_intermediate=False)
    assert fpr95(mine, other) == pytest.approx(false[np.argmax(true >= 0.95)], abs=1e-12)


def test_the_ends_of_the_scales():
    low, high = torch.arange(10.0), torch.arange(10.0) + 20
    assert (auroc(high, low), fpr95(high, low)) == (1.0, 0.0)
    assert (auroc(low, high), fpr95(low, high)) == (0.0, 1.0)
    assert (auroc(low, low), fpr95(torch.ones(5), torch.ones(3))) == (0.5, 1.0)


@pytest.mark.parametrize("count", [19, 20, 21, 39, 40, 100])
def test_the_threshold_accepts_just_95_percent(count):
    """One accepted sample fewer would be too few."""
    inside = torch.randperm(count).double()
    accepted = count - round(count * (1 - fpr95(inside, torch.arange(count))))
    assert accepted / count >= 0.95 > (accepted - 1) / count


@pytest.mark.parametrize("bad", [torch.tensor([]), torch.tensor([[1.0]]), torch.tensor([1.0, float("nan")])])
@pytest.mark.parametrize("measure", [auroc, fpr95])
def test_scores_that_are_none_are_refused(measure, bad):
    with pytest.raises(TombolaError, match="inside scores must be one number a sample"):
        measure(bad, torch.ones(2))
    with pytest.raises(TombolaError, match="outside scores must be one number a sample"):
        measure(torch.ones(2), bad)


def test_scores_of_logits():
    logits = torch.randn(50, 10) * 5
    assert torch.allclose(msp(logits), logits.double().softmax(1).max(1).values)
    for temperature in (0.5, 1.0, 10.0):
        expected = temperature * (logits.double() / temperature).exp().sum(1).log()
        assert torch.allclose(energy(logits, temperature), expected)
    assert msp(torch.tensor([[20.0, 0.0], [30.0, 0.0]])).diff() > 0


def test_calibration_error_counted_bin_by_bin():
    logits, targets = 3 * torch.randn(500, 4), torch.randint(4, (500,))
    confidence, chosen = logits.double().softmax(1).max(1)
    for bins in (1, 10, 15):
        expected = 0.0
        for place in range(bins):
            members = (confidence > place / bins) & (confidence <= (place + 1) / bins)
            if members.any():
                gap = (chosen == targets)[members].double().mean() - confidence[members].mean()
                expected += float(gap.abs() * members.double().mean())
        assert calibration_error(logits, targets, bins) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_known_cases():
    sure, even = torch.tensor([[50.0, 0.0]]).repeat(4, 1), torch.zeros(4, 2)
    right, half, wrong = (torch.tensor(own) for own in ([0, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1]))
    assert calibration_error(sure, right) == pytest.approx(0, abs=1e-12)
    assert calibration_error(sure, wrong) == pytest.approx(1)
    assert calibration_error(sure, half) == pytest.approx(0.5)
    assert calibration_error(even, half) == 0
    certain = torch.tensor([[1.0, 0.0]]).repeat(4, 1).log()
    assert calibration_error(certain, right) == 0


def test_logits_that_do_not_fit_are_refused():
    with pytest.raises(TombolaError, match=r"not \(3, 2\) and \(2,\)"):
        calibration_error(torch.zeros(3, 2), torch.zeros(2, dtype=torch.long))
    with pytest.raises(TombolaError, match="NaN"):
        calibration_error(torch.full((2, 2), float("nan")), torch.zeros(2, dtype=torch.long))
