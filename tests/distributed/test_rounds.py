"""Rounds around training in two processes: masks and weights as in one; a killed run ends as it would have."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from test_attached import WRAPS, Net, adamw, batch, by_layer, share_of
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.multiprocessing import ProcessExitedException

import tombola as tb
from processes import in_two_processes
from tombola import TombolaError
from tombola.tickets import digest_of, tensors_of, whole

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="gloo is not in this build")

METHODS = {
    "init": tb.Iterative(density=0.3, count=2),
    "step": tb.Iterative(density=0.3, count=2, rewind="3it"),
    "kept": tb.Iterative(density=0.3, count=2, rewind="learning-rate", scope="layerwise"),
}


def in_rounds(method: tb.Iterative, model, replicas: int):
    """The tickets of each round, and the last values."""
    tickets = []
    for round in method.rounds(model):
        assert digest_of(tensors_of(model)) == digest_of(round.start.tensors)
        optimizer = adamw(model.parameters())
        with round.attach(optimizer):
            for step in range(4):
                x, y = batch(model, step)
                optimizer.zero_grad()
                F.cross_entropy(model(share_of(x, replicas)), share_of(y, replicas)).backward()
                optimizer.step()
        with torch.no_grad():
            model(x)
        tickets.append(round.ticket)
    values = {name: whole(tensor) for name, tensor in tensors_of(model).items()}
    assert all(not values[name][~round.mask[name]].any() for name in round.mask)
    return tickets, values


def rounds_are_those_of_one_process(names: list[str], wraps: list[str]) -> None:
    for name in names:
        tickets, values = in_rounds(METHODS[name], Net().double(), 1)
        for wrap in wraps:
            others, ends = in_rounds(METHODS[name], WRAPS[wrap](Net().double()), 2)
            assert [own.mask for own in others] == [own.mask for own in tickets], name
            for one, other in zip(tickets, others, strict=True):
                assert one.start.what == other.start.what
                assert all(torch.allclose(one.start.tensors[n], other.start.tensors[n], atol=1e-12) for n in values)
            assert all(torch.allclose(values[n], ends[n], rtol=1e-9, atol=1e-12) for n in values), name
            both = [None, None]
            dist.all_gather_object(both, [own.digest for own in others])
            assert both[0] == both[1]


def train(folder: str, name: str, kill_at: int) -> None:
    """Rounds with a checkpoint after every second step; `kill_at` counts the steps after which rank 1 is killed."""
    place, rank = Path(folder), dist.get_rank()
    model = by_layer(Net())
    rounds, step = METHODS[name].rounds(model), 0
    kept = sorted(place.glob("checkpoint-*"))
    if kept:
        state = torch.load(kept[-1] / "rounds.pt", weights_only=True)
        rounds.load_state_dict(state["rounds"])
        step = state["step"]
    for round in rounds:
        optimizer = adamw(model.parameters())
        with round.attach(optimizer):
            if kept:
                own, steps = get_state_dict(model, optimizer)
                dcp.load({"model": own, "optimizer": steps}, checkpoint_id=kept.pop())
                kept.clear()
                set_state_dict(model, optimizer, model_state_dict=own, optim_state_dict=steps)
            while step < 6:
                x, y = batch(model, 10 * round.index + step)
                optimizer.zero_grad()
                F.cross_entropy(model(share_of(x, 2)), share_of(y, 2)).backward()
                optimizer.step()
                step += 1
                kill_at -= 1
                if kill_at == 0 and rank == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                if step % 2 == 0:
                    own, steps = get_state_dict(model, optimizer)
                    unfinished = place / "unfinished"
                    dcp.save({"model": own, "optimizer": steps}, checkpoint_id=unfinished)
                    state = {"rounds": rounds.state_dict(), "step": step}
                    if rank == 0:
                        torch.save(state, unfinished / "rounds.pt")
                        unfinished.rename(place / f"checkpoint-{round.index}-{step}")
                    dist.barrier()
        step = 0
    ticket = round.ticket
    values = {name: whole(tensor).clone() for name, tensor in tensors_of(model).items()}
    if rank == 0:
        ticket.save(place / "ticket.safetensors")
        torch.save(values, place / "values.pt")


@pytest.mark.slow
def test_rounds_of_two_processes_are_those_of_one(tmp_path):
    in_two_processes(rounds_are_those_of_one_process, tmp_path, list(METHODS), list(WRAPS))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kills"), [("init", [3, 8]), ("step", [3]), ("kept", [9])])
def test_a_killed_run_ends_as_an_undisturbed_one(name, kills, tmp_path):
    whole_run, killed = tmp_path / "whole", tmp_path / "killed"
    for place in (whole_run, killed):
        place.mkdir()
    in_two_processes(train, whole_run, str(whole_run), name, 0)
    for kill in kills:
        with pytest.raises(
            ProcessExitedException, match="signal SIG"
        ):  # of the killed rank, or of the other, which is ended then
            in_two_processes(train, killed, str(killed), name, kill, attempts=1)
        assert not (killed / "values.pt").exists()
    in_two_processes(train, killed, str(killed), name, 0)
    assert (killed / "ticket.safetensors").read_bytes() == (whole_run / "ticket.safetensors").read_bytes()
    one, other = (torch.load(place / "values.pt", weights_only=True) for place in (whole_run, killed))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_state_of_rounds_is_of_one_network_and_method():
    model = Net()
    rounds = METHODS["step"].rounds(model)
    next(rounds)
    state = rounds.state_dict()
    for bad, says in (
        ({}, "not the state of rounds"),
        ({**state, "round": 5}, "these rounds end with round 2"),
        ({**state, "start": {"weight": torch.ones(2)}}, "belong to another architecture"),
    ):
        with pytest.raises(TombolaError, match=says):
            METHODS["step"].rounds(model).load_state_dict(bad)
