"""The command line as a user types it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import docstring_parser
import pytest

import tombola as tb
from tombola import zoo
from tombola.cli import COMMANDS, main
from tombola.registry import METHODS

SMALL = ["--recipe.epochs", "1"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def typed(capsys, *words: str) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return status, out, err


def answered(capsys, *words: str) -> dict:
    """What a command with --json prints: one line of strict JSON and nothing else."""
    status, out, err = typed(capsys, *words, "--json")
    assert (status, err) == (0, "")
    assert out.count("\n") == 1

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(out, parse_constant=refuse)


@pytest.mark.parametrize("name", [name for name, own in METHODS.items() if own.granularity == "weight"])
@pytest.mark.filterwarnings("ignore::tombola.methods.SearchWarning")
@pytest.mark.filterwarnings("ignore::tombola.tickets.TieWarning")  # Neurons that are dead on the first batch.
def test_find_writes_a_ticket_with_the_asked_density_for_every_method(capsys, name):
    answer = answered(capsys, "find", name, "--density", "0.3", "--out", "t", *SMALL)
    ticket = tb.Ticket.load("t/ticket.safetensors")
    assert answer["digest"] == ticket.digest
    asked, kept = round(0.3 * 50_200), ticket.mask.total_kept
    assert sum(answer["kept"].values()) == kept
    assert kept <= asked if METHODS[name].density_kind == "bound" else kept == asked
    assert ticket.provenance.method == name
    assert ticket.provenance.task == {"data": "digits", "model": "lenet-300-100", "recipe.epochs": "1"}


@pytest.mark.parametrize(
    ("words", "channels"),
    [
        (("early-bird", "--epsilon", "0.9", "--window", "2"), 172),
        (("worm", "--epsilon", "0.9", "--window", "2", "--truncate", "always"), 172),
        (("network-slimming",), 172),
        (("snip", "--granularity", "channel:mean", "--floor", "1"), 100),  # Those of a stream go together.
    ],
)
@pytest.mark.filterwarnings("ignore::tombola.structure.coupled_channels.FloorWarning")  # So few channels.
def test_find_writes_a_ticket_of_channels(capsys, words, channels):
    small = ("--model", "resnet20", "--width", "0.25", "--recipe.epochs", "2", "--recipe.batch", "512")
    answer = answered(capsys, "find", *words, "--density", "0.5", "--out", "t", *small)
    ticket = tb.Ticket.load("t/ticket.safetensors")
    assert answer["digest"] == ticket.digest
    assert answer["removed"] == {group: len(own) for group, own in ticket.removed.items()}
    assert sum(answer["removed"].values()) == round(0.5 * channels)


def test_find_says_how_many_channels_it_removed(capsys):
    words = ("snip", "--granularity", "channel", "--floor", "1", "--model", "resnet20", "--width", "0.25")
    status, out, err = typed(capsys, "find", *words, "--density", "0.5", "--out", "t", *SMALL)
    assert (status, err) == (0, "")
    said = " ".join(out.split())
    assert "50 of 100 channels removed, as density 0.5 asks; " in said
    assert f"{tb.Ticket.load('t/ticket.safetensors').density:.4g} of the weights left" in said


def test_a_score_of_ones_own_is_searched_without_a_note(capsys, monkeypatch):
    Path("own_score.py").write_text(
        "import tombola as tb\n\n\ndef score(model, batches=(), loss=None, **view):\n"
        "    return tb.scores.magnitude(model, **view)\n"
    )
    monkeypatch.syspath_prepend(".")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        status, out, err = typed(capsys, "find", "own_score:score", "--density", "0.5", "--out", "t", *SMALL)
    assert (status, err) == (0, "")
    assert "The search cost" in out


def test_shrink_says_that_a_ticket_of_single_weights_makes_nothing_smaller(capsys):
    answered(capsys, "find", "random", "--density", "0.5", "--out", "t", *SMALL)
    warnings.simplefilter("default")
    status, out, err = typed(capsys, "shrink", "t", "--out", "s")
    assert status == 0
    assert "nothing was cut out, so the network is as large as before" in err
    assert "--granularity channel" in err
    assert "accuracy" in out
    assert "small" in out


@pytest.mark.parametrize("name", ["snip", "imp", "edge-popup", "worm", "rigl", "greedy"])
def test_the_help_of_a_method_says_what_each_setting_means_once(capsys, name):
    with pytest.raises(SystemExit):
        main(["find", name, "--help"])
    told = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert not re.search(r"Args:|Examples:|>>>", told)
    for kind in type(METHODS[name]).__mro__[:-1]:
        for entry in docstring_parser.parse(kind.__doc__).params:
            shown = 0 if entry.arg_name in ("prunable", "score") else 1
            assert told.count(" ".join(entry.description.split())) == shown, entry.arg_name


def test_shrink_trains_a_ticket_and_writes_the_smaller_network(capsys):
    small = ("--model", "resnet20", "--width", "0.25", "--recipe.epochs", "3", "--recipe.batch", "128")
    answered(
        capsys, "find", "early-bird", "--epsilon", "0.9", "--window", "2", "--density", "0.4", "--out", "t", *small
    )
    answer = answered(capsys, "shrink", "t", "--out", "s")
    assert answer["small"]["parameters"] < 0.8 * answer["whole"]["parameters"]
    assert answer["small"]["flops"] < 0.8 * answer["whole"]["flops"]
    assert 0 < answer["small"]["dead"] < 0.6
    assert 0.1 < answer["small"]["metric"] <= 1
    assert {path.name for path in Path("s").iterdir()} == {"network.json", "weights.safetensors"}
    facts = json.loads(Path("s/network.json").read_text())["facts"]
    assert facts["task"]["model"] == "resnet20"
    again = tb.load_small("s", zoo.model("resnet20", (1, 8, 8), 10, 0.25)())
    assert sum(p.numel() for p in again.parameters()) == answer["small"]["parameters"]


@pytest.mark.slow
def test_shrink_writes_a_file_for_onnx_runtime(capsys):
    answered(
        capsys, "find", "snip", "--granularity", "channel", "--floor", "1", "--density", "0.5", "--out", "t", *SMALL
    )
    status, out, err = typed(capsys, "shrink", "t", "--out", "s", "--to", "onnx")
    assert (status, err) == (0, "")
    assert "For ONNX Runtime: s/network.onnx" in out
    assert "tb.load_small(folder, model)" in out


@pytest.mark.slow
def test_a_ticket_of_channels_is_checked_against_shuffled_channels(capsys):
    small = ("--model", "resnet20", "--width", "0.25", "--recipe.epochs", "1", "--recipe.batch", "512")
    words = ("find", "snip", "--granularity", "channel", "--floor", "1", "--density", "0.5", "--out", "t", *small)
    answered(capsys, *words)
    answer = answered(capsys, "check", "t/ticket.safetensors", "--seeds", "2", "--controls", "shuffle", "random")
    assert {own["against"] for own in answer["verdicts"][0]["controls"]} == {"shuffle", "random"}


def test_channels_by_norms_need_a_norm(capsys):
    status, out, err = typed(capsys, "find", "early-bird", "--out", "t", *SMALL)
    assert (status, out) == (2, "")
    assert "no batch norm with a scale" in err
    assert err.count("\n") == 1


def test_find_without_json_says_what_was_found_what_it_cost_and_what_to_do_next(capsys):
    status, out, err = typed(capsys, "find", "snip", "--density", "0.3", "--out", "t", "--score.batches", "2", *SMALL)
    assert (status, err) == (0, "")
    assert "1.weight" in out
    assert "dense epochs" in out
    assert "tombola check t/ticket.safetensors" in out


def test_a_search_of_scores_draws_its_curve_and_says_what_it_knows_before_training(capsys):
    status, out, err = typed(capsys, "find", "gem-miner", "--density", "0.3", "--out", "t", *SMALL)
    assert (status, err) == (0, "")
    assert re.search(r"As it was found, before it trains: \d+\.\d\d% on the validation split", out)
    assert "t/search.svg" in out
    assert Path("t/search.svg").read_text().startswith("<svg")
    answer = answered(capsys, "find", "gem-miner", "--density", "0.3", "--out", "t", *SMALL)
    assert answer["curve"] == "t/search.svg"
    assert 0 <= answer["before"] <= 1
    rows = [json.loads(line) for line in Path("t/history.jsonl").read_text().splitlines()]
    assert [set(row) >= {"stage", "epoch", "density", "penalty", "validation_metric"} for row in rows] == [True]
    snip = answered(capsys, "find", "snip", "--density", "0.3", "--out", "s", *SMALL)
    assert (snip["curve"], snip["before"]) == (None, None)


@pytest.mark.parametrize(
    "words",
    [
        ["--keep", "top", "--penalty", "0.001", "--scope", "layerwise", "--no-gradual"],
        ["--penalty", "auto", "--final", "rounded", "--ties", "paper-code", "--no-hold", "--weights", "own"],
        ["--optimizer", "adam", "--lr", "0.01", "--norm", "l1", "--penalty", "1e-5", "--period", "5it", "--floor", "0"],
    ],
)
def test_gem_miners_settings_can_be_typed(capsys, words):
    answer = answered(capsys, "find", "gem-miner", "--density", "0.3", "--length", "2", "--out", "t", *words, *SMALL)
    assert answer["cost"]["dense_epochs"] == 2


def test_a_ticket_can_be_trained_at_another_learning_rate_than_its_search(capsys):
    own, other = (answered(capsys, "train", "snip", "--density", "0.3", *lr, *SMALL) for lr in ([], ["--lr", "0.01"]))
    assert own["history"][0]["lr"] != other["history"][0]["lr"]
    assert other["settings"]["lr"] == 0.01
    assert "--lr 0.01" in other["command"]
    assert own["search"] == other["search"]


def test_a_ticket_knows_its_task_when_it_is_checked_and_trained(capsys):
    answered(capsys, "find", "erk", "--data", "mnist1d", "--density", "0.3", "--out", "t", *SMALL)
    trained = answered(capsys, "train", "t")
    assert trained["settings"]["task"]["data"] == "mnist1d"
    assert trained["epochs"] == 1
    checked = answered(capsys, "check", "t/ticket.safetensors", "--seeds", "2", "--out", "c")
    (verdict,) = checked["verdicts"]
    assert verdict["subject"] == "erk"
    assert {c["against"] for c in verdict["controls"]} == {"shuffle", "fresh-init", "random"}
    assert Path("c/report.html").exists()
    assert {p.name for p in Path("c").glob("*.png")} == {
        "accuracy.png",
        "differences.png",
        "layers.png",
        "training.png",
        "cost.png",
    }


@pytest.mark.usefixtures("without_pictures")
def test_compare_then_report_give_the_same_verdicts_and_train_nothing_again(capsys):
    words = ["compare", "snip", "random", "--densities", "0.3", "--seeds", "1", "--out", "c", *SMALL]
    first = answered(capsys, *words)
    assert first["runs"] == 1 + 2 * 4
    assert [verdict["subject"] for verdict in first["verdicts"]] == ["snip", "random"]
    before = {path: path.stat().st_mtime_ns for path in Path("c").glob("*/result.json")}
    assert answered(capsys, *words) == first
    assert answered(capsys, "report", "c") == first
    assert {path: path.stat().st_mtime_ns for path in Path("c").glob("*/result.json")} == before
    timed = ("savings", "seconds")
    assert _without(answered(capsys, *words, "--fresh"), *timed) == _without(first, *timed)
    assert all(path.stat().st_mtime_ns > time for path, time in before.items())


def _without(answer: Any, *keys: str) -> Any:
    match answer:
        case dict():
            return {key: _without(value, *keys) for key, value in answer.items() if key not in keys}
        case list():
            return [_without(value, *keys) for value in answer]
    return answer


@pytest.mark.usefixtures("without_pictures")
def test_every_runs_command_makes_the_same_result_again(capsys):
    answered(capsys, "check", "snip", "--density", "0.3", "--seeds", "1", "--out", "c", "--recipe.lr", "0.05", *SMALL)
    results = tb.Store("c").results()
    assert {result.arm for result in results} == {
        "dense",
        "snip",
        "snip · shuffle",
        "snip · fresh-init",
        "snip · random",
    }
    answered(capsys, "find", "lrr", "--rewind", "2it", "--density", "0.5", "--seed", "3", "--out", "t", *SMALL)
    answered(capsys, "check", "t", "--seeds", "1", "--out", "c2")
    for index, result in enumerate([*results, *tb.Store("c2").results()]):
        again = answered(capsys, *shlex.split(result.command)[1:], "--out", f"again-{index}")
        assert again["metric"] == result.metric, result.command


def test_the_demo_prints_a_table_writes_report_and_tickets_and_says_what_to_do_next(capsys):
    status, out, _ = typed(capsys, "demo", "--seeds", "1", "--out", "d", *SMALL)
    assert status == 0
    for word in ("imp", "snip", "gem-miner", "random", "dense", "shuffle", "Next:", "d/report.html"):
        assert word in out
    assert len(list(Path("d").glob("find-*/ticket.safetensors"))) == 8


def test_methods_lists_every_method_with_its_paper(capsys):
    rows = answered(capsys, "methods")["methods"]
    assert [row["method"] for row in rows] == list(METHODS)
    assert all(row["paper"] and row["cost"] and row["density"] in ("exact", "bound", "outcome") for row in rows)
    status, out, _ = typed(capsys, "methods")
    assert status == 0
    assert "Frankle & Carbin" in out


MINE = """
import torch
from torch import nn

def data():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    return {"train": (x[:150], y[:150]), "test": (x[150:], y[150:])}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 20), nn.Linear(20, 2)
    def forward(self, x):
        return self.two(self.one(x).relu())
"""


def test_the_users_own_network_and_data(capsys, monkeypatch, tmp_path):
    Path("mine_own.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ["--data", "mine_own:data", "--model", "mine_own:Net", "--recipe.epochs", "20"]
    answer = answered(capsys, "find", "imp", *own, "--density", "0.5", "--out", "t")
    assert answer["kept"].keys() == {"one.weight", "two.weight"}
    assert answered(capsys, "train", "t", "--trust")["metric"] > 0.7
    assert answered(capsys, "train", "dense", "--data", "mine_own:data", "--recipe.epochs", "20")["metric"] > 0.7


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main([command, "--help"]))
    assert ended.value.code in (0, None)
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize("package", ["tombola", "tombola.cli"])
def test_the_package_runs_as_the_command(package):
    done = subprocess.run([sys.executable, "-m", package, "fnd"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tombola: there is no command 'fnd'; did you mean 'find'?")


@pytest.mark.slow
def test_a_real_process_keeps_standard_output_for_the_answer(tmp_path):
    words = [sys.executable, "-m", "tombola.cli", "find", "random", "--density", "0.5", "--out", "t", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["density"] == 0.5
    assert done.stderr == ""


@pytest.mark.parametrize("words", [["find", "impp"], ["compare", "imp", "snp"], ["fnd"], ["--help"], ["methods"]])
def test_what_needs_no_torch_imports_none(words):
    code = f"import sys; from tombola.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("did you mean" in done.stderr) == (words[0] not in ("--help", "methods"))
