"""What methods are called, and that two of one name stay two."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import pytest

import tombola as tb
from tombola.methods import label_of
from tombola.registry import METHODS
from tombola.report import GatheredArms
from tombola.studies.comparison import labelled
from tombola.testing import toy_task


def mine(model, batches=(), loss=None, **view):
    return tb.scores.magnitude(model, **view)


def other(model, batches=(), loss=None, **view):
    return {name: -w for name, w in tb.scores.magnitude(model, **view).items()}


other_of_the_same_name = other
other_of_the_same_name.__name__ = other_of_the_same_name.__qualname__ = "mine"


@dataclass(frozen=True)
class Mine(tb.OneShot):
    gain: float = 1.0


@pytest.mark.parametrize("name", METHODS.own)
def test_a_preset_is_called_by_its_name_however_much_it_keeps(name):
    own = METHODS[name]
    assert label_of(own) == name
    if tb.methods.blocks_removed(own) is None:
        assert label_of(replace(own, density=0.5)) == name
    else:
        assert label_of(tb.methods.removing(own, 2)) == name


@pytest.mark.parametrize(
    ("own", "label"),
    [
        (tb.method("snip", floor=1), "snip(floor=1)"),
        (tb.method("synflow", rounds=5), "synflow(rounds=5)"),
        (tb.method("imp", rewind="2it"), "imp(rewind=2it)"),
        (tb.method("imp", share=0.5, count=3), "imp(share=0.5, count=3)"),
        (tb.method("snip", granularity=tb.Channels()), "snip(granularity=channel)"),
        (tb.OneShot(score=tb.scores.Snip(batches=4)), "snip(score.batches=4)"),
        (tb.method("erk", prunable=tb.Prunable(exclude=("fc",))), "erk(prunable.exclude=fc)"),
        (tb.OneShot(score=mine), "mine"),
        (tb.OneShot(score=mine, rounds=3), "mine(rounds=3)"),
        (tb.Iterative(score=mine), "imp(score=mine)"),
        (tb.OneShot(score=tb.scores.Wanda()), "wanda"),
        (Mine(), "Mine"),
        (Mine(gain=2.0, density=0.3), "Mine(gain=2)"),
    ],
    ids=lambda own: own if isinstance(own, str) else "",
)
def test_what_differs_from_a_preset_is_in_the_label(own, label):
    assert label_of(own) == label


def test_two_of_one_name_are_numbered_and_one_at_two_densities_is_one():
    one, two = tb.OneShot(score=mine), tb.OneShot(score=other)
    asked = [one, replace(one, density=0.2), two, replace(two, density=0.2), one]
    assert [label for label, _ in labelled(asked)] == ["mine", "mine", "mine #2", "mine #2"]
    assert [label for label, _ in labelled({"a": one, "b": two})] == ["a", "b"]


def test_methods_that_differ_in_a_setting_are_rows_of_their_own():
    task = toy_task(epochs=1)
    subjects = [tb.method("snip", density=0.5, floor=1), tb.method("synflow", density=0.5, rounds=5)]
    study = tb.compare(task, subjects, seeds=2, controls=["random"])
    arms = [(arm.method, len(arm.results)) for arm in GatheredArms.of(study.results, study.verdicts).arms if arm.method]
    assert arms == [
        ("snip(floor=1)", 2),
        ("snip(floor=1)", 2),
        ("synflow(rounds=5)", 2),
        ("synflow(rounds=5)", 2),
    ]
    assert [own.subject for own in study.verdicts] == ["snip(floor=1)", "synflow(rounds=5)"]


def test_names_of_ones_own_are_shown_and_make_no_other_run(tmp_path):
    task, engine = toy_task(epochs=1), tb.Engine(tb.Store(tmp_path))
    first = tb.compare(task, [tb.method("snip", density=0.5)], seeds=2, controls=["random"], engine=engine)
    before = sorted(tmp_path.glob("*/result.json"))
    named = {"my idea": tb.method("snip", density=0.5)}
    again = tb.compare(task, named, seeds=2, controls=["random"], engine=engine)
    assert sorted(tmp_path.glob("*/result.json")) == before
    assert {own.method for own in again.results} == {"my idea", ""}
    assert again.verdicts[0].subject == "my idea"
    assert again.verdicts[0].means == first.verdicts[0].means


def test_two_scores_of_one_name_are_two_rows(tmp_path):
    subjects = [tb.OneShot(0.5, score=mine), tb.OneShot(0.5, score=other)]
    study = tb.compare(toy_task(epochs=1), subjects, seeds=2, controls=[], engine=tb.Engine(tb.Store(tmp_path)))
    assert [own.subject for own in study.verdicts] == ["mine", "mine #2"]
    assert study.verdicts[0].means["ticket"] != study.verdicts[1].means["ticket"]
    unnumbered = [replace(own, method="mine") if own.method else own for own in study.results]
    assert [arm.method for arm in GatheredArms.of(unnumbered, ()).arms if arm.method] == ["mine", "mine #2"]


def test_one_method_by_two_names_is_two_rows_of_the_same_runs(tmp_path):
    own = tb.method("snip", density=0.5)
    engine = tb.Engine(tb.Store(tmp_path))
    study = tb.compare(toy_task(epochs=1), {"a": own, "b": own}, seeds=2, controls=["random"], engine=engine)
    assert [verdict.subject for verdict in study.verdicts] == ["a", "b"]
    arms = [(arm.method, arm.control, len(arm.results)) for arm in GatheredArms.of(study.results, study.verdicts).arms]
    assert arms == [("", "", 2), ("a", "", 2), ("a", "random", 2), ("b", "", 2), ("b", "random", 2)]
    assert len(list(tmp_path.glob("*/result.json"))) == 6


@pytest.mark.parametrize("label", ["", " ", "dense"])
def test_no_subject_is_called_as_the_dense_network_is(label):
    with pytest.raises(tb.TombolaError, match="give another name"):
        tb.compare(toy_task(epochs=1), {label: tb.method("snip")}, seeds=1)


def test_a_long_name_has_a_folder_and_a_preset_s_name_for_another_no_wrong_command(tmp_path):
    task = replace(toy_task(epochs=1), labels={"model": "lenet-300-100", "data": "digits"})
    subjects = {"x" * 300: tb.method("snip", density=0.5), "synflow": tb.method("snip", density=0.5, floor=1)}
    study = tb.compare(task, subjects, seeds=1, controls=[], engine=tb.Engine(tb.Store(tmp_path)))
    commands = {result.method[:7]: result.command for result in study.results if result.method}
    assert commands["synflow"] == ""
    assert commands["xxxxxxx"].startswith("tombola train snip --density 0.5")


@pytest.mark.parametrize("given", ["channel", tb.Channels, None])
def test_what_is_no_granularity_is_refused_by_every_method(given):
    for name in METHODS.own:
        method = METHODS[name]
        if any(own.name == "granularity" and own.init for own in fields(method)):
            with pytest.raises(tb.TombolaError, match="the granularity is"):
                replace(method, granularity=given)
