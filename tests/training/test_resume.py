"""Killed and begun again, everything comes out as if undisturbed; the caller's random state is left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import tombola as tb
from killed import Kill
from tombola.cli import main
from tombola.testing import toy_task
from tombola.training import Diverged, Run
from tombola.training.checkpoint import Checkpoint
from tombola.training.loop import fit

FIND = [
    "find",
    "imp",
    "--data",
    "digits",
    "--model",
    "lenet-300-100",
    "--density",
    "0.2",
    "--seed",
    "0",
    "--recipe.epochs",
    "2",
    "--json",
    "--out",
]


def _find(folder: Path, capsys) -> dict:
    assert main([*FIND, str(folder)]) == 0
    return _without_times(json.loads(capsys.readouterr().out))


def _without_times(answer: dict) -> dict:
    cost = {key: value for key, value in answer["cost"].items() if key not in ("seconds", "peak_memory")}
    return {key: value for key, value in answer.items() if key != "ticket"} | {"cost": cost}


@pytest.mark.slow
def test_a_search_killed_in_its_midst_and_run_again_gives_the_equal_ticket_and_ledger(tmp_path, capsys):
    undisturbed = _find(tmp_path / "undisturbed", capsys)
    folder = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-m", "tombola.cli", *FIND, folder], stdout=subprocess.DEVNULL) as process:
        while len(list(folder.glob("stages/*.end.pt"))) < 3 and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert _find(folder, capsys) == undisturbed


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("steps", [8, 13, 18])
def test_training_killed_in_mid_epoch_ends_bit_equal(tmp_path, optimizer, steps):
    task = toy_task()
    recipe = tb.Recipe(
        epochs=4, batch=20, lr=0.01, optimizer=optimizer, augment=("crop", "flip"), warmup=1, precision="float32"
    )
    task = replace(task, recipe=recipe)
    mask = tb.select(tb.scores.magnitude(task.build(0)), 0.5)

    def run(checkpoint=None, observers=()):
        model = task.build(0)
        done = fit(task, model, recipe, seed=3, attached=mask, checkpoint=checkpoint, observers=observers)
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in done.history]
        return model.state_dict(), rows, replace(done.cost, seconds=0, peak_memory=0)

    checkpoint = Checkpoint(tmp_path / "going.pt", every=0.0)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, [Kill(steps)])
    again, undisturbed = run(checkpoint, [Kill(0)]), run(observers=[Kill(0)])
    assert all(torch.equal(value, undisturbed[0][name]) for name, value in again[0].items())
    assert again[1:] == undisturbed[1:]


@pytest.mark.parametrize("loader", [False, True])
def test_data_order_is_a_function_of_seed_and_epoch(loader):
    task = toy_task()
    if loader:
        task = _from_loaders(task)

    def orders(seed):
        seen = []

        def forward(model, inputs):
            if model.training and inputs.device.type != "meta":
                seen.append(float(inputs.double().sum()))
            return model(inputs)

        watched = replace(task, forward=forward)
        fit(watched, watched.build(0), watched.recipe, seed=seed)
        return seen

    first, again, other = orders(0), orders(0), orders(1)
    assert first == again
    assert first != other
    assert first[: len(first) // 2] != first[len(first) // 2 :]


def _from_loaders(task):
    """The same task, its data in DataLoaders that shuffle by the global generator."""
    train = TensorDataset(*task.data["train"])
    splits = {"train": DataLoader(train, 20, shuffle=True), "validation": DataLoader(train, 60)}
    return replace(task, data=splits | {"test": DataLoader(train, 60)})


def test_a_task_of_data_loaders_has_one_digest_and_finds_the_same_ticket_again():
    task, again = _from_loaders(toy_task()), _from_loaders(toy_task())
    torch.manual_seed(9)
    assert task.data_digest == again.data_digest
    for name in ("snip", "synflow", "imp"):
        method = tb.method(name, density=0.5)
        torch.manual_seed(random.randrange(1000))
        assert tb.find(task, method).digest == tb.find(again, method).digest


@pytest.mark.parametrize("loaders", [False, True])
@pytest.mark.parametrize("work", ["find", "train", "check", "diverge"])
def test_the_global_random_states_are_left_as_they_were(work, loaders):
    task = _from_loaders(toy_task()) if loaders else toy_task()
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    if work == "diverge":
        with pytest.raises(Diverged):
            tb.train(replace(task, recipe=replace(task.recipe, lr=1e30)))
    elif work == "train":
        tb.train(task)
    elif work == "find":
        tb.find(task, tb.method("imp", density=0.5))
    else:
        tb.check(task, tb.method("snip", density=0.5), seeds=1)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())


class _GPUs:
    """Two GPUs that are not there: what torch does to their random states."""

    def __init__(self, monkeypatch, initialised):
        self.states, self.initialised = [torch.tensor([1]), torch.tensor([2])], initialised
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: initialised)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_rng_state", self.get)
        monkeypatch.setattr(torch.cuda, "set_rng_state", self.put)
        monkeypatch.setattr(torch.cuda, "manual_seed_all", self.seed)

    def get(self, device=0):
        assert self.initialised, "a GPU was initialised"
        return self.states[int(device)].clone()

    def put(self, state, device=0):
        assert self.initialised, "a GPU was initialised"
        self.states[int(device)] = state

    def seed(self, seed):
        self.states = [torch.tensor([seed])] * 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("initialised", [True, False])
def test_what_gpus_draw_is_not_changed_by_work_on_the_processor(initialised, monkeypatch):
    gpus, task = _GPUs(monkeypatch, initialised), toy_task()
    model, batches = task.build(0), list(task.batches("train", 0, 0))
    ticket = tb.find(task, tb.OneShot(0.5, granularity=tb.Channels()))
    for work in (
        lambda: tb.scores.snip(model, batches, task.loss),
        lambda: tb.scores.ProsPr()(model, batches, task.loss),
        lambda: tb.train(task, ticket),
        lambda: tb.shrink(model, ticket, example=batches[0][0]),
        lambda: tb.structure.residual_blocks(model, lambda own: own(batches[0][0].to(own[0].weight.device))),
    ):
        work()
        assert gpus.states == [torch.tensor([1]), torch.tensor([2])]


def test_a_finished_stage_is_read_and_not_trained_again(tmp_path):
    task = toy_task()
    first = Run(folder=tmp_path)
    trained = first.stage("one", task, task.build(0))
    second, model = Run(folder=tmp_path), task.build(5)
    assert second.stage("one", task, model, observers=[Kill(1)][:0]) == trained
    assert second.cost == first.cost
