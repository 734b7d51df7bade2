"""Which way a task's metric is better: said by its entry, by the user, by itself, by its name, or guessed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.evidence import Measure, measure_of
from tombola.methods.greedy_search import Goal
from tombola.methods.saturation_curve import CurvePoint, saturation
from tombola.registry import lower_is_better
from tombola.shrinking.recalibration import AccuracyWarning, warn_of_fall
from tombola.studies import DirectionWarning, sanity
from tombola.studies.measures import check_direction
from tombola.testing import toy_task


def named(name: str):
    def metric(outputs, targets):
        return (outputs.argmax(-1) == targets).float().mean()

    metric.__name__ = name
    return metric


LOWER = (
    "rmse val_mae error top1_error loss perplexity wer WordErrorRate negative_log_likelihood brier_score KLDivergence"
)
HIGHER = "accuracy my_f1 negative_mae minus_loss AUROC mean_average_precision log_likelihood neg_rmse r2"
UNKNOWN = "quality score <lambda> metric accuracy_loss"


@pytest.mark.parametrize(
    ("name", "lower"),
    [(name, True) for name in LOWER.split()]
    + [(name, False) for name in HIGHER.split()]
    + [(name, None) for name in UNKNOWN.split()],
)
def test_a_name_says_which_way_is_better(name, lower):
    assert lower_is_better(named(name)) is lower


def test_a_metric_that_says_it_itself_goes_before_its_name():
    own = named("rmse")
    own.higher_is_better = True
    assert lower_is_better(own) is False
    assert lower_is_better(partial(named("rmse"), weight=None)) is True
    assert lower_is_better(nn.MSELoss()) is True


@pytest.mark.parametrize(
    ("name", "values", "asked", "measure"),
    [
        ("rmse", [0.2, 0.3], None, Measure("rmse", lower=True, share=False)),
        ("word_error_rate", [0.2, 0.3], None, Measure("word-error-rate", lower=True)),
        ("word_error_rate", [0.2, 1.3], None, Measure("word-error-rate", lower=True, share=False)),
        ("f1", [0.2, 0.3], None, Measure("f1")),
        ("quality", [0.2, 0.3], "lower", Measure("quality", lower=True, share=False)),
        ("rmse", [0.2, 0.3], "higher", Measure("rmse")),
        ("<lambda>", [2.0], None, Measure("metric", share=False)),
        ("rmse", [2.0], Measure("own", lower=True), Measure("own", lower=True, share=False)),
    ],
)
def test_what_a_metric_is(name, values, asked, measure):
    assert measure_of(replace(toy_task(), metric=named(name)), values, asked) == measure


def test_a_guess_is_said_and_nothing_else_is(recwarn):
    check_direction(toy_task(), None)
    check_direction(replace(toy_task(), metric=named("rmse")), None)
    check_direction(replace(toy_task(), metric=named("quality")), "higher")
    assert not recwarn.list
    with pytest.warns(
        DirectionWarning, match="higher values of the metric 'quality' are taken as better; if it is an er"
    ):
        check_direction(replace(toy_task(), metric=named("quality")), None)
    with pytest.raises(tb.TombolaError, match="the measure is 'low'; give 'lower', 'higher' or a Measure"):
        check_direction(toy_task(), "low")  # ty: ignore[invalid-argument-type]


def test_sanity_checks_go_by_it():
    task = replace(toy_task(epochs=1), metric=named("quality"))
    (checked,) = sanity(task, [tb.method("random", density=0.5)], checks=["shuffle"], seeds=2, measure="lower").sanity
    (shuffle,) = checked.checks
    assert shuffle.comparison is not None
    assert shuffle.comparison.measure.lower


def test_searches_and_cuts_go_by_it_too():
    goal = Goal(1.0, 0.1, (), torch.nn.functional.mse_loss, lower=True)
    assert [goal.near(value) for value in (0.5, 1.05, 1.2)] == [True, True, False]
    curve = [
        CurvePoint(step, value, 0.1, 0.1, 9) for step, value in ((1, 0.5), (2, 0.3), (4, 0.2), (8, 0.2), (16, 0.2))
    ]
    found = saturation(curve, tolerance=0.01, patience=1, lower=True)
    assert found is not None
    assert (found.step, found.best) == (4, 0.2)
    with pytest.warns(AccuracyWarning, match="the metric rose from 0.3 to 0.4 with what the mask removes"):
        warn_of_fall(0.3, 0.4, lower=True)
