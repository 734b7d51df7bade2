"""Claims: judged as they say, carried on from records, and told on a page."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

import tombola as tb
from made_up import run
from tombola import TombolaError
from tombola.cli import main
from tombola.methods import blocks_removed, method
from tombola.papers.claims import (
    CLAIMS,
    LEVELS,
    Claim,
    ClaimArm,
    Expectation,
    Measurement,
    Protocol,
    Unit,
    arms_of,
    claim_files,
    judge_claim,
    load_records,
    load_taken,
    measure,
)
from tombola.papers.claims.claim_pages import claim_page
from tombola.papers.claims.measures import before_training
from tombola.studies import RECIPES, Engine, Store, TaskOptions
from tombola.training import Recipe

ROOT = Path(__file__).parents[2]
TASK = TaskOptions(data="digits", model="lenet-300-100", width=0.05, recipe=Recipe(epochs=1, precision="float32"))
SMALL = Claim(
    id="small",
    title="A small claim",
    statement="Magnitude at initialisation is better than random.",
    source="Nobody",
    differs="in everything",
    protocols={
        level: Protocol(
            TASK,
            {"magnitude": ClaimArm(method("magnitude-init", density=0.5)), "random": ClaimArm(method("random"), "")},
            2,
            "0",
        )
        for level in LEVELS
    },
    expected=(Expectation("magnitude", ">", "random"),),
)


def arm(metrics: list[float]):
    return [run("imp", "", 0.1, seed, metric=metric) for seed, metric in enumerate(metrics)]


@pytest.mark.parametrize(
    ("relation", "left", "finding", "outcome"),
    [
        (">", [0.90, 0.91, 0.92], "holds", "reproduced"),
        (">", [0.70, 0.71, 0.72], "contradicted", "not reproduced"),
        (">", [0.80, 0.95, 0.70], "undecided", "inconclusive"),
        (">", [0.801, 0.810, 0.819], "contradicted", "not reproduced"),
        ("≥", [0.90, 0.91, 0.92], "holds", "reproduced"),
        ("≥", [0.799, 0.810, 0.821], "holds", "reproduced"),
        ("≥", [0.70, 0.71, 0.72], "contradicted", "not reproduced"),
        ("≥", [0.80, 0.95, 0.70], "undecided", "inconclusive"),
    ],
)
def test_an_expectation_is_held_against_paired_differences(relation, left, finding, outcome):
    report = judge_claim([Expectation("a", relation, "b")], {"a": arm(left), "b": arm([0.80, 0.81, 0.82])})
    assert report.findings == (finding,)
    assert report.outcome == outcome
    assert report.sentence.startswith(outcome)


def test_one_contradiction_outweighs_what_holds():
    arms = {"a": arm([0.9, 0.91, 0.92]), "b": arm([0.8, 0.81, 0.82]), "c": arm([0.95, 0.96, 0.97])}
    report = judge_claim([Expectation("a", ">", "b"), Expectation("a", ">", "c")], arms)
    assert report.findings == ("holds", "contradicted")
    assert report.outcome == "not reproduced"


@pytest.mark.filterwarnings("ignore::tombola.studies.execution.StaleWarning")
def test_records_spare_the_runs_and_give_the_same_outcome(tmp_path):
    records = tmp_path / "records" / "small.jsonl"
    first = measure(SMALL, "standard", Engine(Store(tmp_path / "one")), records=records)
    assert len(load_records(records)) == 4
    marked = [replace(result, metric=result.metric + 1, source="elsewhere") for result in load_records(records)]
    records.write_text("".join(result.to_json() + "\n" for result in marked))
    second = measure(SMALL, "standard", Engine(Store(tmp_path / "two")), records=records)
    assert [r.metric - 1 for r in second.arms["random"]] == pytest.approx([r.metric for r in first.arms["random"]])
    fresh = measure(SMALL, "standard", Engine(Store(tmp_path / "two", fresh=True)), records=records)
    assert [r.metric for r in fresh.arms["random"]] == [r.metric for r in first.arms["random"]]


def test_damaged_records_name_their_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(run("imp", "", 0.1, 0).to_json() + "\n{\n")
    with pytest.raises(TombolaError, match=r"a\.jsonl is damaged in line 2"):
        load_records(path)


def test_the_command_measures_writes_the_page_and_measures_nothing_twice(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(CLAIMS, "small", SMALL)
    assert main(["claims", "small", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["claims"]["small"]
    page = Path("docs/claims/small.md").read_text()
    assert told["sentence"].capitalize() in page
    assert Path("docs/claims/small.svg").read_text().startswith("<svg")
    for metrics in told["arms"].values():
        assert ", ".join(f"{100 * metric:.2f}" for metric in metrics) in page
    stamps = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("result.json")}
    assert main(["claims", "small"]) == 0
    assert "Page: docs/claims/small.md" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("result.json")} == stamps
    assert main(["claims", "small", "--quick"]) == 0
    assert Path("runs/claims/quick/small.md").exists()


def test_the_list_names_every_claim(capsys):
    assert main(["claims", "--json"]) == 0
    assert {row["id"] for row in json.loads(capsys.readouterr().out)["claims"]} == set(CLAIMS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["claims", "lottery"], "no claim 'lottery'"),
        (["claims", "lottery-ticket", "--quick", "--full"], "give one of them"),
        (["claims", "lottery-ticket", "--data-dir", "."], "apt-get install dataset-fashion-mnist"),
        (["claims", "lottery-ticket", "--data-dir", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_bad_words_and_missing_data_get_one_sentence(words, says, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)
def test_every_claim_is_whole(claim):
    for level in LEVELS:
        arms = claim.protocols[level].arms
        assert claim.expected_of(level)
        if isinstance(claim.protocols[level], Protocol):
            assert all(own.method is not None or not own.control for own in arms.values())
    assert claim.expected_of("standard") == claim.expected


def test_every_file_of_a_claim_is_listed():
    files = Path(claim_files.__file__).parent / "entries"
    assert sorted(CLAIMS) == sorted(path.stem for path in files.glob("*.toml"))


WRITTEN = """
title = "Settings"
statement = '''A claim is read \n as it is written.'''
source = "Nobody"
differs = "in nothing"
expected = ["snip, 1/4 ≥ dense within 0.02", "dead layers of snip > none"]

[standard]
seeds = 3
minutes = "1"
density = "1/4"
methods.gentle = { method = "snip", score = { score = "snip", batches = 4 } }
measured = ["seconds", "dead layers"]
task = { data = "digits", model = "lenet-300-100", recipe = { epochs = 4, lr = 0.2 } }

[standard.arms]
"dense" = { extra_epochs = 1 }
"snip, 1/4" = { method = "gentle", control = "shuffle", lrs = ["recipe", 0.1] }
"{measured} of snip" = { method = "snip" }
"blocks" = { method = "layer-snip", density = 0.1, granularity = { granularity = "block", remove = 3 } }

[quick]
seeds = 1
task.recipe.epochs = 1
only = ["dense", "snip*"]

[full]
task = { data = "cifar10", model = "conv4" }
arms."snip, 1/4".density = 0.5
"""


def test_a_claim_is_what_its_file_says():
    own = claim_files.claim_of("settings", tomllib.loads(WRITTEN))
    quick, standard, full = (own.protocols[level] for level in LEVELS)
    assert own.statement == "A claim is read as it is written."
    assert own.expected[0] == Expectation("snip, 1/4", "≥", "dense", margin=0.02)
    assert own.expected[1] == Expectation("dead layers of snip", ">", "none")
    assert standard.task.recipe == replace(RECIPES["digits"], epochs=4, lr=0.2)
    assert list(standard.arms) == ["dense", "snip, 1/4", "seconds of snip", "dead layers of snip", "blocks"]
    assert standard.arms["dense"] == ClaimArm(None, extra_epochs=1)
    gentle = method("snip", density=0.25, score=tb.scores.Snip(batches=4))
    assert standard.arms["snip, 1/4"] == ClaimArm(gentle, "shuffle", lrs=(None, 0.1))
    assert standard.arms["dead layers of snip"].unit.name == "layers"
    assert blocks_removed(standard.arms["blocks"].method) == 3
    assert (list(quick.arms), quick.seeds, quick.task.recipe.epochs) == (["dense", "snip, 1/4"], 1, 1)
    assert full.task == TaskOptions("cifar10", "conv4", recipe=RECIPES["cifar10"])
    assert full.arms["snip, 1/4"].method.density == 0.5


def test_a_claims_file_with_a_word_that_nobody_knows_is_refused():
    said = tomllib.loads(WRITTEN)
    said["standard"]["arms"]["dense"]["densty"] = 0.1
    with pytest.raises(TypeError, match="an arm without a method has no densty"):
        claim_files.claim_of("settings", said)
    said["standard"]["arms"]["dense"] = {"measured": "secnds"}
    with pytest.raises(TombolaError, match="there is no measure 'secnds'; did you mean 'seconds'"):
        claim_files.claim_of("settings", said)


def figures_on_record(protocol: Measurement, records: Path):
    taken = load_taken(records)
    assert [own.seed for own in taken] == list(range(protocol.seeds))
    assert all(own.settings == own.settings | protocol.asked for own in taken)
    return protocol.figures(taken)


def runs_on_record(protocol: Protocol, records: Path):
    arms = arms_of(protocol, load_records(records))
    assert all([result.seed for result in own] == list(range(protocol.seeds)) for own in arms.values())
    for name, own in protocol.arms.items():
        assert {result.control for result in arms[name]} == {own.control}
        if own.method is None or blocks_removed(own.method) is None:
            assert {result.density for result in arms[name]} == {own.method.density if own.method else 1.0}
    return arms


MEASURED = [claim for claim in CLAIMS.values() if (ROOT / "docs" / "claims" / f"{claim.id}.md").exists()]


@pytest.mark.parametrize("claim", MEASURED, ids=lambda claim: claim.id)
def test_the_committed_page_follows_from_the_committed_records(claim):
    """Nobody has typed a figure: page and outcome are made again from the records."""
    records, protocol = ROOT / "docs" / "claims" / f"{claim.id}.jsonl", claim.protocols["standard"]
    arms = (
        figures_on_record(protocol, records) if isinstance(protocol, Measurement) else runs_on_record(protocol, records)
    )
    report = judge_claim(claim.expected, arms, protocol.units)
    page = (ROOT / "docs" / "claims" / f"{claim.id}.md").read_text()
    table = re.compile(r"^\|.*$", re.MULTILINE)
    assert table.findall(claim_page(claim, "standard", report)) == table.findall(page)
    assert report.sentence.capitalize() in page


def test_a_tuned_arm_is_the_one_that_validates_best_and_another_measure_is_taken_from_the_same_runs():
    arms = {
        "tuned": ClaimArm(method("imp"), lrs=(0.1, 0.3)),
        "before": ClaimArm(method("imp"), measured=before_training),
    }
    protocol = Protocol(TASK, arms, 2, "0")
    low, high, plain = (run("imp", "", 0.1, 0, metric=value) for value in (0.9, 0.8, 0.7))
    low, high = replace(low, validation=0.5), replace(high, validation=0.6)
    plain = replace(plain, before=0.3)
    ordered = [low, high, plain, replace(low, seed=1), replace(high, seed=1), replace(plain, seed=1)]
    found = arms_of(protocol, ordered)
    assert [result.metric for result in found["tuned"]] == [0.8, 0.8]
    assert [result.metric for result in found["before"]] == [0.3, 0.3]


def test_a_tuned_arms_runs_differ_in_their_learning_rate_alone():
    arm = ClaimArm(method("magnitude-init", density=0.5), lrs=(0.1, 0.3))
    plan = Protocol(TASK, {"tuned": arm}, 2, "0").specs()
    assert [[spec.lr for spec in line] for line in plan["tuned"]] == [[0.1, 0.1], [0.3, 0.3]]


@dataclass(frozen=True)
class Halves:
    """Figures of a seed, and how often they were taken."""

    factor: float = 0.5
    asked: ClassVar[list[int]] = []

    def __call__(self, seed, engine, data_dir):
        self.asked.append(seed)
        return {"half": self.factor * (seed + 2), "whole": seed + 2.0}


UNIT = Unit("apples", "apples", 1, 0.1)
COUNTED = Claim(
    id="counted",
    title="Halves are smaller",
    statement="A half is less than the whole.",
    source="Nobody",
    differs="in nothing",
    protocols={
        level: Measurement(Halves(), {"half": UNIT, "whole": UNIT}, 3, "0", "Halves were counted.") for level in LEVELS
    },
    expected=(Expectation("whole", ">", "half"),),
)


def test_a_claim_may_be_figures_of_a_function_which_are_taken_once(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(CLAIMS, "counted", COUNTED)
    Halves.asked.clear()
    assert main(["claims", "counted", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["claims"]["counted"]
    assert told["outcome"] == "reproduced"
    assert told["arms"]["half"] == [1.0, 1.5, 2.0]
    page = Path("docs/claims/counted.md").read_text()
    assert "Halves were counted." in page
    assert "| half | 1.50 apples (0.26 … 2.74) | 1.00, 1.50, 2.00 |" in page
    assert main(["claims", "counted"]) == 0
    assert Halves.asked == [0, 1, 2]
    figures_on_record(COUNTED.protocols["standard"], Path("docs/claims/counted.jsonl"))
    assert main(["claims", "counted", "--fresh"]) == 0
    assert Halves.asked == [0, 1, 2] * 2


def test_figures_of_other_settings_do_not_count_and_damaged_ones_are_named(tmp_path):
    path, engine = tmp_path / "counted.jsonl", Engine(Store(tmp_path))
    measure(COUNTED, "standard", engine, records=path)
    protocol = replace(COUNTED.protocols["standard"], take=Halves(0.25))
    other = replace(COUNTED, protocols=dict.fromkeys(LEVELS, protocol))
    report = measure(other, "standard", engine, records=path)
    assert [own.metric for own in report.arms["half"]] == [0.5, 0.75, 1.0]
    units = {**protocol.units, "quarter": UNIT}
    more = replace(COUNTED, protocols=dict.fromkeys(LEVELS, replace(protocol, units=units)))
    with pytest.raises(KeyError, match="quarter"):  # What was not measured is not taken from the record.
        measure(more, "standard", engine, records=path)
    path.write_text(path.read_text() + "{")
    with pytest.raises(TombolaError, match=r"counted\.jsonl is damaged in line 4"):
        load_taken(path)
