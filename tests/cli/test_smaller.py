"""A trained network of one's own made smaller, targets of searches, and sensitivity, as a user types them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tombola as tb
from tombola.cli import main
from tombola.studies import default_options, make_task, read_weights
from tombola.training import Run

DIGITS = ["--data", "digits", "--model", "lenet-300-100"]
SHORT = ["--recipe.epochs", "1", "--recipe.batch", "256"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained():
    task = make_task(replace(default_options(DIGITS), recipe=tb.Recipe(epochs=4)))
    return tb.train(task, seed=0).model.state_dict()


def answered(capsys, *words: str) -> dict:
    status = main([*words, "--json"])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    return json.loads(out)


@pytest.mark.filterwarnings("ignore")
def test_a_trained_network_gets_smaller_by_one_command(capsys, trained, monkeypatch):
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": own for name, own in trained.items()}}, "trained.pt")
    kept: list[Path] = []
    words = ["smaller", *DIGITS, *SHORT, "--checkpoint", "trained.pt", "--parameters", "0.4", "--to", "", "--out", "s"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "keep", lambda *given, keep=Run.keep: (kept.append(given[0].folder), keep(*given))[1])
        answer = answered(capsys, *words)
    assert kept
    assert not [path for path in kept if "shrink" in path.name]  # the network of the run on record is written
    with monkeypatch.context() as patch:
        patch.setattr(Run, "keep", None)
        assert answered(capsys, *words)["shrink"]["small"] == answer["shrink"]["small"]
    assert answer["metrics"]["ticket"][0] == answer["shrink"]["small"]["metric"]
    assert {form["name"]: form["metric"] for form in answer["shrink"]["forms"]}["dense"] == answer["given"]
    assert answer["target"]["asked"] == {"parameters": 0.4}
    assert answer["counted"]["parameters"] <= 0.4
    assert answer["metrics"].keys() == {"ticket", "dense", "same-size"}
    assert answer["given"] > 0.8
    assert answer["metrics"]["ticket"][0] > answer["metrics"]["same-size"][0]
    ticket = tb.Ticket.load(answer["ticket"])
    whole = make_task(default_options(DIGITS)).build(0)
    whole.load_state_dict(trained)
    ticket.put_into(whole)  # checks that it starts from these weights
    assert Path("s/weights.safetensors").exists() or list(Path("s").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no tensors that can be read"),
        (b"import os", "holds no tensors that can be read"),
        ({"epoch": 3}, "holds no network's tensors"),
        ({"one.weight": torch.ones(2)}, "are another network's"),
    ],
)
def test_files_that_hold_no_weights_of_the_network_are_refused(capsys, content, said):
    if isinstance(content, bytes):
        Path("w.pt").write_bytes(content)
    else:
        torch.save(content, "w.pt")
    assert main(["smaller", *DIGITS, "--checkpoint", "w.pt"]) == 2
    assert said in capsys.readouterr().err


def test_an_untrained_network_and_a_missing_file_are_refused(capsys):
    assert main(["smaller", *DIGITS, "--to", ""]) == 2
    assert "give --checkpoint FILE" in capsys.readouterr().err
    assert main(["smaller", *DIGITS, "--checkpoint", "none.pt"]) == 2
    assert "cannot read none.pt" in capsys.readouterr().err


def test_weights_are_read_without_running_code(tmp_path, trained):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "sang"), "w")

    torch.save({"state_dict": Evil()}, "w.pt")
    with pytest.raises(tb.TombolaError):
        read_weights("w.pt")
    assert not (tmp_path / "sang").exists()


def test_find_says_what_was_asked_and_counted(capsys):
    answer = answered(capsys, "find", "snip", *DIGITS, *SHORT, "--granularity", "channel", "--flops", "0.5")
    assert answer["target"]["asked"] == {"flops": 0.5}
    assert 0.4 < answer["target"]["counted"]["flops"] <= 0.5
    assert main(["find", "snip", *DIGITS, "--flops", "0.5", "--density", "0.1"]) == 2
    assert "both say how much stays" in capsys.readouterr().err


def test_sensitivity_writes_a_table_a_picture_and_a_scope(capsys, trained):
    torch.save(trained, "trained.pt")
    words = ["sensitivity", *DIGITS, "--checkpoint", "trained.pt", "--densities", "0.5", "--flops", "0.8", "--out", "s"]
    answer = answered(capsys, *words)
    assert {own["group"] for own in answer["cuts"]} == answer["scope"].keys()
    assert Path("s/sensitivity.svg").read_text().startswith("<svg")
    assert json.loads(Path("s/sensitivity.json").read_text()) == answer
    words = ["smaller", *DIGITS, *SHORT, "--checkpoint", "trained.pt", "--scope", "s", "--to", "", "--out", "small"]
    smaller = answered(capsys, *words)
    assert smaller["counted"]["flops"] <= 0.8
    refused = {"--flops": "--scope and --flops both say", "--density": "make the two agree"}
    for option, said in refused.items():
        assert main([*words, option, "0.9"]) == 2
        assert said in capsys.readouterr().err
    Path("s/sensitivity.json").write_text('{"cuts": []}')
    assert main(words) == 2
    assert "holds no density for each group" in capsys.readouterr().err
