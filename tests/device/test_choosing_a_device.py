"""`device=` in Python and `--device` of commands: which device runs, and what is said where there is none."""

from __future__ import annotations

import json

import pytest
import torch

import tombola as tb
from networks import short_network
from pretended_device import NAME, pretended_device
from tombola.cli import main
from tombola.structure import own_random_state
from tombola.studies import Serial
from tombola.testing import check_score, toy_task
from tombola.training import Run, agreed_device, chosen_device, own_randomness, train_together

METHOD = tb.OneShot(density=0.5)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU, as far as the device `auto` can tell."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_auto_is_cuda_where_there_is_one(gpu):
    assert chosen_device() == torch.device("cuda")
    assert agreed_device("auto", None) == torch.device("cuda")
    assert agreed_device("auto", torch.device("cpu")) == torch.device("cpu")


CALLS = {
    "find": lambda task, **own: tb.find(task, METHOD, **own),
    "train": tb.train,
    "train_together": lambda task, **own: train_together(task, [], **own),
    "check": lambda task, **own: tb.check(task, METHOD, **own),
    "compare": lambda task, **own: tb.compare(task, [METHOD], **own),
    "sanity": lambda task, **own: tb.sanity(task, [METHOD], **own),
    "Run": lambda task, **own: Run(**own),
    "Serial": lambda task, **own: Serial(**own),
    "check_score": lambda task, **own: check_score(tb.scores.Magnitude(), **own),
    "check_method": lambda task, **own: tb.testing.check_method(METHOD, **own),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("device", ["cuda", "cuda:7", "gpu", "meta", torch.device("cuda"), 3.5])
def test_a_device_that_is_not_there_is_told_in_one_sentence(name, device):
    with pytest.raises(tb.TombolaError, match=r"device '.*give the device cpu, or auto$"):
        CALLS[name](toy_task(short_network), device=device)


@pytest.mark.parametrize("name", ["find", "train", "train_together"])
def test_a_device_and_that_of_a_run_must_agree(name):
    with pretended_device(), pytest.raises(tb.TombolaError, match=f"device is '{NAME}', but the run is on 'cpu'"):
        CALLS[name](toy_task(short_network), device=NAME, run=Run(device="cpu"))


@pytest.mark.parametrize("name", ["check", "compare", "sanity"])
def test_a_device_and_that_of_an_engine_must_agree(name, tmp_path):
    engine = tb.Engine(tb.Store(tmp_path), Serial(torch.device("cpu")))
    with pretended_device(), pytest.raises(tb.TombolaError, match=f"device is '{NAME}', but the engine is on 'cpu'"):
        CALLS[name](toy_task(short_network), device=NAME, engine=engine)


def test_a_run_decides_where_nothing_else_is_said():
    with pretended_device():
        task, run = toy_task(short_network, epochs=1), Run(device=NAME)
        for chosen in ({}, {"device": NAME}, {"device": torch.device(NAME, 0)}):
            assert next(tb.train(task, run=run, **chosen).model.parameters()).device.type == NAME


@pytest.mark.parametrize(
    ("asked", "of_run", "agree"),
    [("cuda", "cuda:1", True), ("cuda:1", "cuda:1", True), ("cuda:0", "cuda:1", False), ("cpu", "cuda", False)],
)
def test_a_gpu_without_a_number_goes_with_each(monkeypatch, asked, of_run, agree):
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)  # which shows whether the device is there
    if agree:
        assert agreed_device(asked, torch.device(of_run)) == torch.device(of_run)
    else:
        with pytest.raises(tb.TombolaError, match="leave device out"):
            agreed_device(asked, torch.device(of_run))


def test_a_device_does_not_rename_a_run(tmp_path):
    task = toy_task(short_network, epochs=1)
    on_cpu = tb.execute([tb.RunSpec(task)], tb.Store(tmp_path), Serial(torch.device("cpu")))[0]
    with pretended_device(), pytest.warns(match="other conditions .*on cpu; here .*on pretended"):
        again = tb.execute([tb.RunSpec(task)], tb.Store(tmp_path), Serial(NAME))[0]
    assert again.digest == on_cpu.digest
    assert again.settings["device"] == "cpu"


COMMANDS = [
    ["find", "snip"],
    ["train", "dense"],
    ["check", "snip"],
    ["compare", "snip"],
    ["sanity", "snip"],
    ["robustness", "snip"],
    ["sparsest"],
    ["sparsest", "snip"],
    ["demo"],
    ["enough"],
    ["claims", "layer-criterion", "--quick"],
]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_without_its_gpu_says_so_and_writes_nothing(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--device", "cuda"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "tombola: there is no device 'cuda' here; give the device cpu, or auto\n")
    assert not list(tmp_path.iterdir())


def test_a_command_runs_there_and_its_result_says_so(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pretended_device():
        assert main(["train", "dense", "--recipe.epochs", "1", "--device", NAME, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["device"] == NAME


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that hold numbers as their random states, and note who is asked."""
    states = {0: torch.tensor([1]), 1: torch.tensor([2])}
    asked: list[str] = []

    def seeded(seed: int) -> None:
        asked.append("manual_seed_all")
        states.update({device: torch.tensor([seed]) for device in states})

    def get(device: int) -> torch.Tensor:
        asked.append("get_rng_state")
        return states[device]

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    monkeypatch.setattr(torch.cuda, "get_rng_state", get)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state}))
    return states, asked


def test_random_states_of_gpus_in_use_stay_also_where_the_model_is_on_the_cpu(gpus, monkeypatch):
    states, asked = gpus
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    tb.scores.snip(short_network(), [(torch.randn(4, 1, 8, 8), torch.arange(4))], torch.nn.functional.cross_entropy)
    with own_randomness(torch.device("cpu"), 3), own_random_state(torch.device("cpu"), 4):
        torch.rand(1)
    assert "manual_seed_all" in asked
    assert [int(states[device]) for device in states] == [1, 2]


def test_gpus_that_are_not_in_use_are_left_alone(gpus):
    _, asked = gpus
    task = toy_task(short_network, epochs=1)
    tb.train(task, tb.find(task, METHOD, device="cpu"), device="cpu")
    assert not asked
    assert not torch.cuda.is_initialized()
