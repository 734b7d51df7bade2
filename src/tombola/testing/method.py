"""Does a method keep the laws that every method must?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from tombola.methods import Method, find
from tombola.scores import Score, Scores, View
from tombola.structure import QueryKey, prunable
from tombola.testing.laws import law
from tombola.testing.toys import toy_network, toy_task
from tombola.tickets import Mask, Seed, Ticket, Values, digest_of, parameters_of, tensors_of
from tombola.training import Fit, GatheredScores, Observer, Run, State, SupervisedTask, Task, evaluate, start_of, train


class Killed(BaseException):
    """Stands for a kill in mid-epoch."""


class Killer(Observer):
    """Kills training after so many optimizer steps of a run, counted over its stages."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def after_step(self, state: State) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class DeadStaysDead(Observer):
    """Looks after every step whether dead weights and their optimizer state are exactly zero."""

    def __init__(self, mask: Mask) -> None:
        self.dead = {name: ~mask[name] for name in mask}

    def after_step(self, state: State) -> None:
        weights = dict(state.model.named_parameters())
        for name, dead in self.dead.items():
            same = [t for t in state.optimizer.state[weights[name]].values() if getattr(t, "shape", None) == dead.shape]
            for tensor in (weights[name].detach(), *same):
                law("dead stays dead", not tensor[dead].any(), f"'{name}' has live values where the mask is dead")


class WatchedRun(Run):
    """A run that notes the masks of all stages and scores, what each stage was given, and can be killed."""

    def __init__(self, seed: int = 0, folder: Path | None = None, kill_after: int = 0) -> None:
        super().__init__(seed, folder, checkpoint_seconds=0.0)
        self.masks: list[Mask] = []
        self.begun: list[str] = []
        self.fits: list[Fit] = []
        self._killer = Killer(kill_after)

    def stage(self, name: str, task: Task, model: nn.Module, **given: Any) -> Fit:
        attached, observers = given.get("attached"), given.get("observers", ())
        if attached is not None:
            self.masks.append(attached.mask if isinstance(attached, Ticket) else attached)
        if tensors_of(model).keys() == tensors_of(task.build(self.seed)).keys():
            self.begun.append(digest_of(tensors_of(model)))
        given["observers"] = [*observers, self._killer]
        done = super().stage(name, task, model, **given)
        self.fits.append(done)
        return done

    def score(
        self, score: Score, task: Task, model: nn.Module, noted: GatheredScores | None = None, **view: Unpack[View]
    ) -> Scores:
        if (mask := view.get("mask")) is not None:
            self.masks.append(mask)
        return super().score(score, task, model, noted, **view)


def check_method(method: Method, network: Callable[[], nn.Module] = toy_network) -> None:
    """Raise LawBroken, naming the law, unless the method keeps every law of methods on a small task.

    exact: the density that its kind promises. nested: masks only shrink from stage to stage and from score to score; if
    the method may `regrow`, they never get denser. rewind: the ticket's start values are what it says, bit for bit.
    round trip: its file gives it back. dead stays dead: while it trains. same seed: same ticket, and other weights or
    another mask for another seed. resume: killed in mid-epoch and begun again, the same ticket, history and ledger.
    costs: the ledger equals what ran. network: one that the method can prune, from inputs (n, 1, 8, 8) to 5 outputs.
    """
    plain = toy_task(network)
    task = CountingTask(**{name: value for name, value in vars(plain).items() if not name.startswith("_")})
    run = WatchedRun()
    ticket = find(task, method, run=run)
    _check_density(method, ticket, task)
    for earlier, later in pairwise([*run.masks, ticket.mask]):
        if getattr(method, "regrow", False):
            law("nested", later.total_kept <= earlier.total_kept, "the mask got denser")
        else:
            law("nested", later <= earlier, "a weight that was removed came back, and the method has no regrow=True")
    law("costs", run.cost.samples_backward == task.counted["backward"], _ledger(run, task, "backward"))
    law("costs", run.cost.samples_forward == task.counted["forward"], _ledger(run, task, "forward"))
    again = find(task, method, run=WatchedRun())
    law("same seed", _same(again, ticket), "the same seed gave another ticket")
    law("same seed", not _same(find(task, method, run=WatchedRun(seed=1)), ticket), "another seed gave the same ticket")
    _check_start(ticket, task, run)
    _check_round_trip(ticket)
    _check_training(ticket, task)
    _check_resume(method, plain, ticket, run)


class CountingTask(SupervisedTask):
    """A task that counts the samples that really go forward and backward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counted = {"forward": 0, "backward": 0}
        forward = self.forward

        def counting(model: nn.Module, inputs: Any) -> Any:
            if inputs.device.type != "meta":
                counted["forward"] += len(inputs)
                counted["backward"] += len(inputs) if torch.is_grad_enabled() else 0
            return forward(model, inputs)

        object.__setattr__(self, "forward", counting)
        object.__setattr__(self, "counted", counted)

    counted: dict[str, int]


def _ledger(run: Run, task: CountingTask, way: str) -> str:
    return f"{task.counted[way]} samples went {way}, the ledger says {getattr(run.cost, f'samples_{way}')}"


def _check_density(method: Method, ticket: Ticket, task: Task) -> None:
    parameters = parameters_of(task.build(0))
    names = ticket.mask if isinstance(method.granularity, QueryKey) else prunable(task.build(0))
    size = sum(parameters[name].numel() for name in names)
    asked, kept = round(method.density * size), ticket.mask.total_kept
    if method.density_kind == "exact" and not ticket.removed:
        law("exact", kept == asked, f"density {method.density} of {size} weights is {asked}, the ticket keeps {kept}")
    if method.density_kind == "bound":
        law(
            "exact",
            kept <= asked,
            f"density {method.density} of {size} weights bounds {asked}, the ticket keeps {kept}",
        )


def _same(one: Ticket, other: Ticket) -> bool:
    return one.digest == other.digest


def _check_start(ticket: Ticket, task: Task, run: WatchedRun) -> None:
    own = digest_of(tensors_of(start_of(task, ticket, 0)))
    if isinstance(ticket.start, Seed):
        built = Seed.of(
            task.build(ticket.start.seed), ticket.start.seed, ticket.start.weights, ticket.mask, ticket.held
        )
        law("rewind", own == built.digest, "the start is not the initialisation")
        law("rewind", len(set(run.begun)) <= 1, "a round did not train from the initialisation")
    else:
        law("rewind", own == ticket.start.digest, "the start values are not the ticket's")
        if ticket.start.what not in ("end", "transformed") and len(run.begun) > 1:
            law("rewind", set(run.begun[1:]) == {own}, f"a round did not train from the values at {ticket.start.what}")


def _check_round_trip(ticket: Ticket) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticket.safetensors"
        ticket.save(path)
        law("round trip", Ticket.load(path) == ticket, "the ticket's file gives another ticket")
        mask_only = not isinstance(ticket.start, Values)
        limit = ticket.mask.size / 8 + 4096 + 256 * len(ticket.mask)
        law("round trip", not mask_only or path.stat().st_size <= limit, f"its file takes {path.stat().st_size} bytes")


def _check_training(ticket: Ticket, task: Task) -> None:
    model = start_of(task, ticket, 0)
    Run(0).stage("train", task, model, attached=ticket, observers=[DeadStaysDead(ticket.mask)])
    evaluate(task, model, "test", task.recipe)
    train(task, ticket)


def _check_resume(method: Method, task: SupervisedTask, ticket: Ticket, undisturbed: WatchedRun) -> None:
    steps = sum(len(fit.history) for fit in undisturbed.fits) * len(list(task.batches("train", 0, 0)))
    with tempfile.TemporaryDirectory() as folder:
        try:
            find(task, method, run=WatchedRun(folder=Path(folder), kill_after=steps // 2 + 2))
        except Killed:
            law("resume", steps > 0, "it was killed without training")
        run = WatchedRun(folder=Path(folder))
        law(
            "resume",
            _same(find(task, method, run=run), ticket),
            "killed and begun again, it found another ticket",
        )
        law("resume", _histories(run) == _histories(undisturbed), "killed and begun again, its history differs")
        mine, other = (_without_times(asdict(r.cost)) for r in (run, undisturbed))
        law("resume", mine == other, f"killed and begun again, its ledger differs: {mine} is not {other}")


def _histories(run: WatchedRun) -> list[list[dict[str, float]]]:
    return [[_without_times(row) for row in fit.history] for fit in run.fits]


def _without_times(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key not in ("seconds", "peak_memory")}
