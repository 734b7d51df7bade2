"""LoFT in two processes: the ticket of one process, the bytes that were counted, and what happens if a worker ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import tombola as tb
from processes import in_two_processes
from tombola import TombolaError
from tombola.methods.filter_division import Divisions, InnerFilters
from tombola.methods.worker_processes import processes
from tombola.structure import Channels
from tombola.testing import toy_task
from tombola.tickets import tensors_of
from tombola.training import Run
from tombola.zoo.resnet import ResNet

PAGE = (Path(__file__).parents[2] / "docs" / "methods" / "loft.md").read_text()
METHOD = tb.methods.LoFT(local_steps=4, epsilon=0.0, limit=60.0)


def network():
    """With dropout, so that what workers draw counts."""
    model = ResNet("basic", 4, [(4, 1), (8, 2)], "A", (1, 8, 8), 5)
    model.fc = torch.nn.Sequential(torch.nn.Dropout(0.2), model.fc)
    return model


def filterwise(settings: list[dict[str, object]]) -> None:
    task = toy_task(network)
    task = replace(task, recipe=replace(task.recipe, clip=1.0))
    for own in settings:
        method = replace(METHOD, **own)
        alone, apart = Run(device="cpu"), Run(device="cpu")
        expected = method._find(task, alone, None)
        with processes(2, 60.0, torch.device("cpu")) as link:
            assert link is not None
            ticket = method._find(task, apart, link)
        assert ticket.mask == expected.mask
        values = ticket.start.tensors
        assert all(torch.allclose(values[n], t, rtol=1e-5, atol=1e-6) for n, t in expected.start.tensors.items())
        assert [row["communicated"] for row in apart.history] == [row["communicated"] for row in alone.history]
        losses = [[row["train_loss"] for row in run.history] for run in (apart, alone)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert apart.cost.samples_backward == alone.cost.samples_backward
        assert apart.cost.dense_epochs == pytest.approx(alone.cost.dense_epochs)
        if not own:  # Momentum would be sent beside the weights.
            bytes_are_those_counted(task, apart, link)
    with pytest.raises(TombolaError, match="2 processes were started for 3 workers"):
        tb.find(task, replace(METHOD, team=3), device="cpu")
    with pytest.raises(TombolaError, match="worker 1 was given another seed than worker 0"):
        tb.find(task, METHOD, seed=dist.get_rank(), device="cpu")


def bytes_are_those_counted(task, run: Run, link) -> None:
    model = task.build(0)
    units = Channels().units(model, run.probe(task))
    divisions = Divisions(InnerFilters.of(model, units, run.probe(task), "later"), model, 2)
    count = divisions.count({n: t for n, t in tensors_of(model).items() if t.is_floating_point()})
    steps = 2 * len(task.batches("train", 0, 0))
    merges = steps // METHOD.local_steps
    assert run.history[-1]["communicated"] == count.filterwise(steps, METHOD.local_steps)
    assert link.sent == link.received == 4 * count.networks[1] * merges  # either way, between the two processes
    weights = replace(count, whole=sum(p.numel() for p in model.parameters()))
    assert run.history[-1]["communicated_data_parallel"] == weights.data_parallel(steps)


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="gloo is not in this build")
def test_two_processes_find_the_ticket_of_one(tmp_path):
    settings = [{"momentum": "kept", "shares": (2.0, 1.0)}, {"statistics": "first", "blocks": "every"}]
    in_two_processes(filterwise, tmp_path, settings)


BREAKS = """
import os, signal, time
from tombola.methods.local_steps import LocalSteps
usual = LocalSteps.after_step
def after_step(self, state):
    if state.step == 25 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        {what}
    usual(self, state)
LocalSteps.after_step = after_step
"""


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="gloo is not in this build")
def test_workers_go_on_by_themselves_when_one_ends_or_hangs(tmp_path):
    (program,) = re.findall(r"```py\n(.*?)```", PAGE, flags=re.DOTALL)
    program = program.replace("seed=0,", "seed=0, checkpoint_seconds=0.0,").replace("limit=60", "limit=10, epsilon=0.0")
    tickets = []
    for name, what in (
        ("whole", "pass"),
        ("ended", "os.kill(os.getpid(), signal.SIGKILL)"),
        ("hangs", "time.sleep(900)"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "search.py").write_text(BREAKS.format(what=what) + program)
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
        done = subprocess.run(
            [sys.executable, *words, "search.py"],
            cwd=folder,
            env=os.environ,
            text=True,
            capture_output=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        if name != "whole":
            assert "worker 0 has waited for worker 1 in vain, for up to 10 s" in done.stderr or name == "ended"
        (ticket,) = folder.glob("ticket-*.safetensors")
        tickets.append(tb.Ticket.load(ticket).digest)  # Its file says how long the search took.
    assert tickets[0] == tickets[1] == tickets[2]


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="gloo is not in this build")
def test_the_command_searches_in_the_processes_that_torchrun_starts(tmp_path):
    """The first one alone keeps the ticket and prints; a finished search is read, and other methods are refused."""
    command = [sys.executable, "-m", "tombola.cli"]
    team = [*command[:1], "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command[1:]]
    task = ["--data", "digits", "--recipe.epochs", "1", "--json", "--out", "runs"]
    network = ["--model", "preresnet20", "--width", "0.25"]
    answers = []
    for place, start in (("one", command), ("two", team), ("two", team)):
        (tmp_path / place).mkdir(exist_ok=True)
        words = [*start, "find", "loft", *network, *task]
        done = subprocess.run(words, cwd=tmp_path / place, text=True, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout)["digest"])
    assert len(set(answers)) == 1
    words = [*team, "find", "snip", *task]
    done = subprocess.run(words, cwd=tmp_path, text=True, capture_output=True, timeout=300)
    assert "'snip' searches in one process; start it without torchrun" in done.stderr
