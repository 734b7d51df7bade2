"""Claims: judged as they say, carried on from records, and told on a page."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
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
    answer_of,
    arms_of,
    claim_files,
    judge_claim,
    load_records,
    load_taken,
    measure,
    measures,
    obstacles,
    on_record,
    quote,
    save_records,
)
from tombola.papers.claims.claim_index import index_page
from tombola.papers.claims.claim_pages import claim_page
from tombola.papers.claims.claim_words import NOT_RUN, WORDS, short_answer
from tombola.papers.claims.dense_table import beside_dense
from tombola.papers.claims.measures import before_training
from tombola.papers.claims.side_by_side import side_by_side
from tombola.studies import RECIPES, Engine, Store, TaskOptions
from tombola.training import Recipe

ROOT = Path(__file__).parents[2]
TASK = TaskOptions(data="digits", model="lenet-300-100", width=0.05, recipe=Recipe(epochs=1, precision="float32"))
SMALL = Claim(
    id="small",
    title="A small claim",
    question="Is magnitude better?",
    topic="magnitude-init",
    statement="Magnitude at initialisation is better than random.",
    source="Nobody",
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
        (">", [0.90, 0.91, 0.92], "holds", "agrees"),
        (">", [0.70, 0.71, 0.72], "contradicted", "disagrees"),
        (">", [0.80, 0.95, 0.70], "undecided", "too few seeds"),
        (">", [0.801, 0.810, 0.819], "contradicted", "disagrees"),
        (">", [0.80, 0.81, 0.82], "contradicted", "disagrees"),
        ("≥", [0.90, 0.91, 0.92], "holds", "agrees"),
        ("≥", [0.799, 0.810, 0.821], "holds", "agrees"),
        ("≥", [0.797, 0.807, 0.817], "holds", "agrees"),
        ("≥", [0.70, 0.71, 0.72], "contradicted", "disagrees"),
        ("≥", [0.80, 0.95, 0.70], "undecided", "too few seeds"),
    ],
)
def test_an_expectation_is_held_against_paired_differences(relation, left, finding, outcome):
    report = judge_claim([Expectation("a", relation, "b")], {"a": arm(left), "b": arm([0.80, 0.81, 0.82])})
    assert report.findings == (finding,)
    assert report.outcome == outcome
    assert report.sentence.startswith(outcome)


def judged(expected: Expectation, differences: list[float], *others: Expectation):
    """The first row where a − b takes these values."""
    b = [0.8 + 0.01 * place for place in range(len(differences))]
    arms = {"a": arm([own + more for own, more in zip(b, differences, strict=True)]), "b": arm(b)}
    return judge_claim([expected, *others], arms)


EARLY_BIRD = [0.0012, -0.0107, -0.0063, -0.0009, -0.0157, -0.0028, -0.0123]
"""Of a ticket of 70 % to dense, over seven seeds."""


def test_worse_but_within_the_margin_is_no_contradiction():
    report = judged(Expectation("a", "≥", "b", margin=0.01), EARLY_BIRD)
    (row,) = report.rows
    assert row.difference.high < 0
    assert row.finding == "undecided"
    assert (round(row.bound, 3), row.limit, row.chance) == (-0.011, -0.01, 0.95)


def test_better_by_less_than_half_of_the_papers_effect_holds_and_says_that_the_size_is_another():
    report = judged(Expectation("a", ">", "b", paper=5.0), [0.010, 0.011, 0.012, 0.009])
    (row,) = report.rows
    assert (row.finding, row.margin, row.excludes_paper) == ("holds", 0.025, True)
    not_shown = judged(Expectation("a", ">", "b", paper=5.0), [0.010, -0.006, 0.012, -0.004])
    assert not_shown.findings == ("contradicted",)


def test_all_must_hold_uncorrected_and_contradictions_are_corrected_for_their_number():
    close = [0.010, 0.012, 0.030, 0.024]
    own = Expectation("a", ">", "b")
    assert judged(own, close, *[own] * 9).outcome == "agrees"
    against = [-value for value in close]
    margin = Expectation("a", "≥", "b", margin=0.005)
    assert judged(margin, against).outcome == "disagrees"
    mixed = {"a": arm([0.8, 0.81, 0.82, 0.83]), "c": arm([0.78, 0.79, 0.85, 0.78])}
    mixed["b"] = arm([one.metric - more for one, more in zip(mixed["a"], against, strict=True)])
    open_ones = [Expectation("a", "≥", "c", margin=0.005)] * 9
    report = judge_claim([margin, *open_ones], mixed)
    assert set(report.findings) == {"undecided"}, "alone it is contradicted; among ten it is not yet"


def test_arms_that_are_the_same_by_construction_neither_hold_nor_contradict():
    same = {"a": arm([0.1, 0.1, 0.1]), "b": arm([0.1, 0.1, 0.1])}
    for relation in (">", "≥"):
        report = judge_claim([Expectation("a", relation, "b")], same)
        assert report.findings == ("tie",)
        assert report.outcome == "too few seeds"
        assert "by construction" in report.answer
    theorem = replace(SMALL, kind="a theorem")
    assert answer_of(theorem, judge_claim([Expectation("a", "≥", "b")], same)) == "checked"


def test_what_could_have_been_shown_stands_beside_what_the_paper_has():
    report = judged(Expectation("a", ">", "b", paper=1.5), [0.03, -0.01, 0.01])
    assert report.answer == "too few seeds (could show 4.97 points, the paper has 1.5 points)"
    needs = judged(Expectation("a", "≥", "b", margin=0.01), [0.03, -0.02, 0.01])
    assert re.fullmatch(r"too few seeds \(could show 4\.24 points, it needs 1 points\)", needs.answer)


def test_what_we_ask_beside_the_paper_does_not_count():
    arms = {"a": arm([0.9, 0.91, 0.92]), "b": arm([0.8, 0.81, 0.82]), "c": arm([0.95, 0.96, 0.97])}
    expected = [Expectation("a", ">", "b"), Expectation("a", ">", "c", counts=False)]
    report = judge_claim(expected, arms)
    assert report.findings == ("holds", "contradicted")
    assert report.outcome == "agrees"


def test_whole_steps_that_agree_in_few_seeds_do_not_show_more_than_half_a_step():
    epochs = Unit("epochs", "epochs", 1, 0.5, step=1)
    arms = {"a": arm([5, 5, 5]), "b": arm([4, 4, 4])}
    (row,) = judge_claim([Expectation("a", ">", "b")], arms, dict.fromkeys(arms, epochs)).rows
    assert (row.finding, round(row.detectable, 2)) == ("undecided", 1.24)


def test_shares_of_runs_are_compared_by_the_exact_test():
    share = Unit("points of runs", "%", 100, 0.005, runs=100)
    arms = {"block": arm([0.03, 0.02, 0.04]), "few": arm([0.0, 0.0, 0.0]), "more": arm([0.02, 0.02, 0.01])}
    expected = [Expectation("block", ">", "few"), Expectation("block", ">", "more")]
    report = judge_claim(expected, arms, dict.fromkeys(arms, share))
    assert report.findings[0] == "holds", "9 of 300 against none: p = 0.002"
    assert report.findings[1] != "holds", "9 of 300 against 5: p = 0.21"
    assert report.rows[0].difference.low > 0 == max(report.rows[1].difference.low, 0)


def test_seeds_are_added_until_it_is_decided(tmp_path):
    protocol = replace(SMALL.protocols["standard"], seeds=5, sequential=True)
    metrics = iter([0.9, 0.5] * 3)
    arms = {name: replace(own, measured=lambda result: next(metrics)) for name, own in protocol.arms.items()}
    claim = replace(SMALL, protocols=dict.fromkeys(LEVELS, replace(protocol, arms=arms)))
    records = tmp_path / "small.jsonl"
    metrics = iter([0.9, 0.89, 0.91, 0.5, 0.51, 0.49])
    report = measure(claim, "standard", Engine(Store(tmp_path / "runs")), records=records)
    assert (report.seeds, report.outcome) == (3, "agrees")
    assert len(load_records(records)) == 6


IMPOSSIBLE = {
    "constant arms": ({"arms": {"a": {"measured": "chance"}, "b": {"measured": "chance"}}}, "cannot|same runs"),
    "a window": (
        {
            "task": {"recipe": {"epochs": 16}},
            "arms": {
                "a": {"measured": "a quarter of training"},
                "b": {"measured": "ticket epoch", "method": "early-bird"},
            },
        },
        "it cannot hold: the difference is at most −1.00 epochs",
    ),
    "the end of training": (
        {
            "task": {"recipe": {"epochs": 4}},
            "arms": {
                "a": {"measured": {"measure": "share of training, at most", "at": 1.5}},
                "b": {"measured": "share of training", "method": "early-bird"},
            },
        },
        "it cannot fail",
    ),
    "the resolution": (
        {
            "seeds": 3,
            "paper": 0.7,
            "task": {"recipe": {"epochs": 16}},
            "arms": {
                "a": {"measured": "ticket epoch", "method": "early-bird"},
                "b": {"measured": "ticket epoch", "method": "worm"},
            },
        },
        "it cannot be shown: in steps of 1 epochs the seeds show 1.24 epochs at best",
    ),
}


@pytest.mark.parametrize("why", IMPOSSIBLE)
def test_an_expectation_that_cannot_hold_or_fail_is_found_in_its_protocol(why):
    own, says = IMPOSSIBLE[why]
    task = {"data": "fashion-mnist-14", "model": "vgg11", **own.get("task", {})}
    standard = {"seeds": own.get("seeds", 3), "minutes": "1", "density": 0.5, "task": task, "arms": own["arms"]}
    for given in standard["arms"].values():
        given.setdefault("method", "early-bird")
    said = {"title": "t", "question": "q", "topic": "t", "statement": "s", "source": "n", "standard": standard}
    expected = {"that": "a ≥ b" if why in ("a window", "the end of training") else "a > b"}
    expected |= {"paper": own["paper"]} if "paper" in own else {}
    claim = claim_files.claim_of("bad", {**said, "expected": [expected]})
    (found,) = obstacles(claim)
    assert re.search(says, found)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)
def test_every_expectation_can_hold_and_can_fail(claim):
    assert obstacles(claim) == []


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


def test_records_keep_what_claims_read_of_the_history(tmp_path):
    row = {"epoch": 1, "train_loss": 2.0, "validation_metric": 0.12346, "robust_pgd": 1 / 3}
    own = run("snip", "", 0.1, 0, history=(row,))
    save_records(tmp_path / "own.jsonl", [own])
    (kept,) = load_records(tmp_path / "own.jsonl")
    assert kept.history == ({"epoch": 1, "validation_metric": 0.1235, "robust_pgd": 1 / 3},)
    assert measures.robust(kept) == measures.robust(own)


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
    assert told["answer"].capitalize() in page
    assert Path("docs/claims/small.svg").read_text().startswith("<svg")
    for metrics in told["arms"].values():
        shown = [f"{100 * metric:.2f}" for metric in metrics]
        assert (f"{shown[0]} % | all the same" if len(set(metrics)) == 1 else ", ".join(shown)) in page
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
question = "Is it read?"
topic = "snip"
source = "Nobody"
expected = [
  "snip, 1/4 ≥ dense within 0.02",
  { that = "dead layers of snip > none", paper = 2.0, place = "table 1", counts = false },
]

[paper]
data = "CIFAR-10"
epochs = 160
seeds = 3
damage = { of = ["dense", "snip, 1/4"], paper = 7.0 }

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
    assert own.expected[1] == Expectation("dead layers of snip", ">", "none", paper=2.0, place="table 1", counts=False)
    assert (own.paper.facts, own.paper.damage.paper) == ({"data": "CIFAR-10", "epochs": 160, "seeds": 3}, 7.0)
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
    said["standard"]["arms"]["dense"] = {}
    said["paper"]["epoch"] = 3
    with pytest.raises(TypeError, match="a paper's protocol has no epoch"):
        claim_files.claim_of("settings", said)


def figures_on_record(protocol: Measurement, records: Path):
    taken = load_taken(records)
    assert [own.seed for own in taken] == list(range(protocol.seeds))
    assert all(own.settings == own.settings | protocol.asked for own in taken)
    return protocol.figures(taken)


def runs_on_record(protocol: Protocol, records: Path):
    arms = arms_of(protocol, load_records(records))
    seeds = [result.seed for result in next(iter(arms.values()))]
    assert all([result.seed for result in own] == seeds for own in arms.values())
    assert seeds == list(range(len(seeds) if protocol.sequential else protocol.seeds))
    for name, own in protocol.arms.items():
        assert {result.control for result in arms[name]} == {own.control}
        if own.method is None or blocks_removed(own.method) is None:
            assert {result.density for result in arms[name]} == {own.method.density if own.method else 1.0}
    return arms


RECORDS = ROOT / "docs" / "claims"


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)
def test_the_committed_page_follows_from_the_committed_records(claim):
    """Nobody has typed a figure: the page is made again from the records, and shows none where there are none."""
    records, protocol = RECORDS / f"{claim.id}.jsonl", claim.protocols["standard"]
    if records.exists() and isinstance(protocol, Measurement):
        figures_on_record(protocol, records)
    elif records.exists():
        runs_on_record(protocol, records)
    report = on_record(claim, records)
    page = (RECORDS / f"{claim.id}.md").read_text()
    assert claim_page(claim, "standard", report) == page
    assert (RECORDS / f"{claim.id}.svg").exists() == (report is not None)
    assert page.startswith(f"# {claim.title}\n\n*{claim.question}*")
    assert f"\n\n**{answer_of(claim, report).capitalize()[:9]}" in page
    assert claim.short.keys() <= WORDS.keys()
    assert answer_of(claim, report) == NOT_RUN or short_answer(claim, report)


def test_the_committed_list_follows_from_the_committed_records():
    reports = {name: on_record(claim, RECORDS / f"{name}.jsonl") for name, claim in CLAIMS.items()}
    page = index_page(CLAIMS, reports)
    assert (RECORDS / "index.md").read_text() == page
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert len(rows) == len(CLAIMS)


def test_the_list_says_what_methods_lose_on_the_dense_network_of_their_own_runs():
    reports = {name: on_record(claim, RECORDS / f"{name}.jsonl") for name, claim in CLAIMS.items()}
    arms = reports["lottery-ticket"].arms
    mean = {name: fmean(own.metric for own in arms[name]) for name in ("imp 5.0%", "dense")}
    rows = [row for row in beside_dense(CLAIMS, reports) if (row.claim, row.method) == ("lottery-ticket", "imp")]
    assert [row.density for row in rows] == pytest.approx([0.2, 0.05, 0.014], rel=1e-3)
    assert rows[1].points == pytest.approx(100 * (mean["imp 5.0%"] - mean["dense"]))
    assert f"{100 * mean['imp 5.0%'] - 100 * mean['dense']:+.1f} at 5 %" in index_page(CLAIMS, reports)
    assert "concrete-ticket-search(" not in index_page(CLAIMS, reports)


def test_the_pages_of_worm_say_that_its_tables_and_its_abstract_differ():
    for name in ("worm", "worm-vgg11", "worm-vit", "worm-window"):
        assert "The abstract says that WORM is faster" in (RECORDS / f"{name}.md").read_text()


def test_a_page_shows_the_paper_beside_what_was_done_and_says_whether_that_can_decide():
    own = claim_files.claim_of("settings", tomllib.loads(WRITTEN))
    rows = {row.what: row for row in side_by_side(own)}
    assert rows["data"].decides == "differs"
    assert (rows["epochs"].paper, rows["epochs"].here, rows["epochs"].decides) == ("160", "4", "2.5 % of them")
    assert rows["seeds"].here == "3"
    arms = {"dense": arm([0.9, 0.91, 0.92]), "snip, 1/4": arm([0.89, 0.90, 0.91])}
    report = judge_claim([Expectation("snip, 1/4", "≥", "dense", 0.02)], arms)
    damage = {row.what: row for row in side_by_side(own, "standard", report)}[
        "what the density costs (dense − snip, 1/4)"
    ]
    assert (damage.here, damage.decides) == ("1.0 points", "hardly: 14 % of it here")


def test_a_full_protocol_is_priced_without_its_data():
    price = quote(CLAIMS["early-bird"], "full")
    assert price.trainings == 28  # seven seeds of dense, two tickets and one with new weights
    assert price.flops == pytest.approx(28 * 160 * 45_000 * 3 * 81e6, rel=0.02)


def test_a_dry_run_lists_and_prices_what_would_run_and_starts_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["claims", "early-bird", "bert-imp", "--full", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["claims"]
    assert [own["claim"] for own in told] == ["early-bird", "bert-imp"]
    assert told[0]["hours"][0] > told[0]["hours"][1] > 0
    assert told[1]["hours"] == [None, None]
    assert not [*tmp_path.iterdir()]


def test_all_pages_are_written_again_from_the_records(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tombola.cli.claims.CLAIMS", {"small": SMALL, "counted": COUNTED})
    measure(COUNTED, "standard", Engine(Store(tmp_path / "runs")), records=tmp_path / "counted.jsonl")
    assert main(["claims", "--pages", "--records", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["claims"] == {"small": "not yet run", "counted": "agrees"}
    assert "Not yet run under this protocol" in (tmp_path / "small.md").read_text()
    assert "| [Is a half less?](counted.md) | *Agrees.* | halves |" in (tmp_path / "index.md").read_text()
    assert "# What this machine cannot decide" in (tmp_path / "full-size.md").read_text()


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
    question="Is a half less?",
    topic="halves",
    statement="A half is less than the whole.",
    source="Nobody",
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
    assert told["outcome"] == "agrees"
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
