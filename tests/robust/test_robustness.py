"""Robustness: what trained networks come to on attacked, corrupted and foreign images, beside each other."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import tombola as tb
from made_up import study
from networks import short_resnet
from tombola import TombolaError, zoo
from tombola.cli import main
from tombola.report import GatheredArms, robustness_rows, robustness_table, write_report
from tombola.robust import SUITES, Robustness, compare_robustness
from tombola.testing import toy_task

FEW = Robustness(epsilons=(8 / 255, 0.1), samples=200, steps=5)


def task_on(data, **settings) -> tb.SupervisedTask:
    recipe = tb.Recipe(epochs=3, batch=64, lr=0.05, precision="float32")
    return tb.SupervisedTask(model=zoo.model("conv2", (1, 8, 8), 8, 0.25), data=data, recipe=recipe, **settings)


@pytest.fixture(scope="module")
def trained() -> tuple[tb.SupervisedTask, nn.Module]:
    task = task_on(zoo.hold_out(zoo.data("digits"), 2))
    return task, tb.train(task).model


def test_everything_is_measured_and_the_network_left_as_it_was(trained):
    task, network = trained
    before, mode = copy.deepcopy(network.state_dict()), network.training
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    found = FEW.measure(task, network)
    assert torch.equal(torch.rand(1), expected)
    assert network.training == mode
    assert all(torch.equal(own, before[name]) for name, own in network.state_dict().items())
    assert all(torch.equal(own.grad, old) for own, old in zip(network.parameters(), gradients, strict=True))
    assert found == FEW.measure(task, network)
    assert {"clean", "calibration error", "corruptions", "severity 5", "FGSM 8/255", "PGD 0.1"} <= found.keys()
    assert {kind for kind in SUITES["core"]} <= found.keys()
    assert {
        f"{kind}, {own}" for kind in ("held-out", "digits", "noise") for own in ("MSP AUROC", "energy FPR95")
    } <= set(found)
    assert all(0 <= value <= 1 for value in found.values())


def test_a_frozen_norm_stays_frozen_also_when_measuring_fails(trained):
    task, network = trained
    network = copy.deepcopy(network).train()
    first = next(part for part in network.modules() if not list(part.children()))
    first.eval()
    before = [part.training for part in network.modules()]
    with pytest.raises(ZeroDivisionError):
        Robustness(samples=20, epsilons=(), far=("noise",), corruptions="none").measure(
            replace(task, metric=lambda outputs, targets: 1 / 0), network
        )
    assert [part.training for part in network.modules()] == before


def test_the_stronger_the_attack_the_lower_the_accuracy(trained):
    found = FEW.measure(*trained)
    assert found["clean"] > 0.8
    assert found["PGD 0.1"] <= found["FGSM 0.1"] < found["FGSM 8/255"] <= found["clean"]
    assert found["noise, MSP AUROC"] > 0.5


def test_means_are_those_of_the_parts(trained):
    found = FEW.measure(*trained)
    kinds = [found[kind] for kind in SUITES["core"]]
    severities = [found[f"severity {own}"] for own in range(1, 6)]
    assert found["corruptions"] == pytest.approx(sum(kinds) / 6) == pytest.approx(sum(severities) / 5)


def test_a_network_that_gives_the_same_for_everything_is_blind(trained):
    task, network = trained
    blind = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in blind.parameters():
            parameter.zero_()
    found = FEW.measure(task, blind)
    assert found["held-out, MSP AUROC"] == 0.5
    assert found["PGD 0.1"] == found["clean"]


def test_scaling_the_data_changes_nothing_where_black_and_white_are_given(trained):
    task, network = trained
    images = task.data["train"][0]
    low, high = float(images.min()), float(images.max())
    scaled = {split: ((inputs - low) / (high - low), targets) for split, (inputs, targets) in task.data.items()}

    class Unscaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = network

        def forward(self, images):
            return self.inside(low + images * (high - low))

    one = replace(FEW, corruptions="none").measure(task, network)
    other = replace(FEW, corruptions="none", black_white=(0.0, 1.0)).measure(task_on(scaled), Unscaled())
    assert {name: other[name] for name in one} == pytest.approx(one, abs=0.011)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (
            lambda task, net: replace(FEW, black_white=(0.0, 1.0)).measure(task, net),
            "give what these are",
        ),
        (lambda task, net: Robustness(samples=0), "samples=0"),
        (lambda task, net: Robustness(epsilons=(8.0,)), "shares of the way from black to white, as 0.03"),
        (
            lambda task, net: FEW.measure(tb.SupervisedTask(nn.Identity, zoo.data("mnist1d")), net),
            "use a task on images",
        ),
        (lambda task, net: zoo.hold_out(zoo.data("digits"), 9), "hold out at most 8, or none: --hold-out 0"),
        (lambda task, net: zoo.hold_out({"train": [1], "test": [2]}, 1), "only data in memory"),
    ],
)
def test_bad_input_gets_a_sentence(act, says, trained):
    with pytest.raises(TombolaError, match=says):
        act(*trained)


def test_held_out_classes_are_in_no_split_but_their_own():
    data = zoo.data("digits")
    held = zoo.hold_out(data, 2)
    assert held["train"][1].max() == held["test"][1].max() == 7
    assert held["held-out"][1].unique().tolist() == [8, 9]
    assert len(held["test"][1]) + len(held["held-out"][1]) == len(data["test"][1])


def test_more_robust_is_better_whichever_way_a_measure_counts():
    ticket = [{"FGSM 1/255": 0.8 + s / 1000, "noise, MSP FPR95": 0.2 + s / 1000} for s in range(5)]
    other = [{"FGSM 1/255": 0.7 + s / 900, "noise, MSP FPR95": 0.3 + s / 900} for s in range(5)]
    found = compare_robustness(ticket, other, "dense")
    assert [own.outcome for own in found.values()] == ["better", "better"]
    assert found["noise, MSP FPR95"].mean == pytest.approx(0.1, abs=0.002)


@pytest.mark.slow
def test_the_report_shows_what_was_tried(tmp_path):
    results, verdicts = study(methods=("imp",), densities=(0.2,))
    known = {"clean": 0.9, "FGSM 1/255": 0.7, "PGD 1/255": 0.6, "severity 1": 0.8, "noise, MSP FPR95": 0.3}
    robust = [
        replace(own, robustness={name: value + own.seed / 100 + bool(own.method) / 50 for name, value in known.items()})
        for own in results
    ]
    assert not robustness_rows(GatheredArms.of(results, verdicts))
    gathered = GatheredArms.of(robust, verdicts)
    (own,) = robustness_rows(gathered)
    assert own.against_dense["FGSM 1/255"].outcome == "better"
    assert own.against_dense["noise, MSP FPR95"].outcome == "worse"
    assert "worse: noise, MSP FPR95" in own.summary
    assert robustness_table(gathered).row_count == len(known)
    page = write_report(robust, verdicts, tmp_path, title="Robust").read_text()
    assert 'id="robustness"' in page
    assert "imp, density 20\u00a0%: FGSM" in page
    assert (tmp_path / "robustness.png").exists()
    assert 'id="robustness"' not in write_report(results, verdicts, tmp_path, title="Not").read_text()


@pytest.mark.usefixtures("without_pictures")
def test_the_command_tries_tickets_beside_dense_and_controls(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--data", "digits", "--model", "conv2", "--width", "0.25", "--recipe.epochs", "1", "--seeds", "2"]
    few = ["--samples", "50", "--epsilons", "0.05", "--steps", "2", "--json"]
    assert main(["robustness", "snip", "--densities", "0.3", *words, *few]) == 0
    (found,) = json.loads(capsys.readouterr().out)["robustness"]
    assert found["means"].keys() == {"ticket", "dense", "random"}
    assert found["against"].keys() == {"dense", "random"}
    assert {"held-out, MSP AUROC", "FGSM 0.05"} <= found["against"]["dense"].keys()
    assert main(["find", "snip", "--density", "0.3", *words[:-2], "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["robustness", "run", "--seeds", "2", "--controls", "shuffle", *few]) == 0
    (found,) = json.loads(capsys.readouterr().out)["robustness"]
    assert "held-out, MSP AUROC" not in found["means"]["ticket"]
    assert main(["robustness", "run", "snip"]) == 2
    assert "tickets of one task can be tried together" in capsys.readouterr().err
    assert main(["robustness"]) == 2


def test_blocks_that_were_removed_are_no_collapse():
    task = toy_task(short_resnet, epochs=1)
    verdict = tb.check(task, tb.method("layer-random"), seeds=1, controls=())
    assert not verdict.collapsed
