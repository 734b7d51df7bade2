"""A check that a method keeps the laws of all methods."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from tombola.methods import Method, find
from tombola.scores import Score, Scores, View
from tombola.structure import QueryKey, prunable
from tombola.testing.laws import LawBroken, deterministic, law
from tombola.testing.toys import recomputed, toy_network, toy_task
from tombola.tickets import Mask, Seed, Ticket, Values, digest_of, parameters_of, tensors_of
from tombola.training import (
    Fit,
    GatheredScores,
    Observer,
    Run,
    State,
    SupervisedTask,
    Task,
    chosen_device,
    evaluate,
    is_trial,
    start_of,
    train,
)


class Killed(BaseException):
    """Stands for a kill in mid-epoch; no `except Exception` can catch it."""


class Killer(Observer):
    """Kills training after `steps` optimizer steps of a run, counted over its stages; 0 never kills."""

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
            state_tensors = state.optimizer.state[weights[name]].values()
            of_weights = [tensor for tensor in state_tensors if getattr(tensor, "shape", None) == dead.shape]
            for tensor in (weights[name].detach(), *of_weights):
                law(
                    "dead stays dead",
                    not tensor[dead.to(tensor.device)].any(),
                    f"'{name}' has live values where the mask is dead",
                )


class WatchedRun(Run):
    """A run that records the masks of all stages and scores and the weights that stages begin with, and can be killed.

    Args:
        seed: the seed of the run.
        folder: where the run keeps its stages; in memory if None.
        kill_after: the optimizer step after which it is killed, counted over all stages; 0 for never.
        device: where networks train.
    """

    def __init__(
        self, seed: int = 0, folder: Path | None = None, kill_after: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        # A checkpoint at every chance, so that a kill finds one.
        super().__init__(seed, folder, device, checkpoint_seconds=0.0)
        self.masks: list[Mask] = []
        self.begun: list[str] = []
        self.fits: list[Fit] = []
        self._killer = Killer(kill_after)

    def stage(self, name: str, task: Task, model: nn.Module, **options: Any) -> Fit:
        attached, observers = options.get("attached"), options.get("observers", ())
        if attached is not None:
            self.masks.append(attached.mask if isinstance(attached, Ticket) else attached)
        # A wrapped model, as a supermask's, has other tensors: its beginning says nothing of the ticket's start.
        if tensors_of(model).keys() == tensors_of(task.build(self.seed)).keys():
            self.begun.append(digest_of(tensors_of(model)))
        options["observers"] = [*observers, self._killer]
        fit = super().stage(name, task, model, **options)
        self.fits.append(fit)
        return fit

    def score(
        self, score: Score, task: Task, model: nn.Module, noted: GatheredScores | None = None, **view: Unpack[View]
    ) -> Scores:
        if (mask := view.get("mask")) is not None:
            self.masks.append(mask)
        return super().score(score, task, model, noted, **view)


def check_method(
    method: Method, network: Callable[[], nn.Module] = toy_network, *, device: torch.device | str = "cpu"
) -> None:
    """Check that a method keeps every law of methods on a small task.

    - exact: the ticket has the density that the method's kind promises.
    - nested: masks only shrink from stage to stage and from score to score; those of a method with `regrow` never get
      denser.
    - costs: the ledger counts the samples that really ran.
    - same seed: the same seed gives the same ticket, another seed another one.
    - recomputation: a network whose forward pass is computed again in backward has the same ticket.
    - rewind: the ticket starts from the values that it names, bit for bit.
    - round trip: the ticket's file gives the ticket back.
    - dead stays dead: removed weights and their optimizer state are zero after every step of the ticket's training.
    - resume: a search that is killed in mid-epoch and begun again has the same ticket, history and ledger.

    Args:
        method: the method.
        network: builds a network that the method can prune, from inputs (n, 1, 8, 8) to 5 outputs.
        device: where networks train, as `cuda`.

    Raises:
        LawBroken: for the first law that the method breaks.

    Examples:
        >>> from tombola.methods import OneShot
        >>> check_method(OneShot(density=0.5))
    """
    place = chosen_device(device)
    with deterministic(place):
        _check_laws(method, network, place)


def _check_laws(method: Method, network: Callable[[], nn.Module], device: torch.device) -> None:
    plain = toy_task(network)
    # Attributes that start with "_" are no fields of the task but what it has worked out.
    task = CountingTask(**{name: value for name, value in vars(plain).items() if not name.startswith("_")})
    run = WatchedRun(device=device)
    ticket = find(task, method, run=run)
    _check_density(method, ticket, task)
    for earlier, later in pairwise([*run.masks, ticket.mask]):
        if getattr(method, "regrow", False):
            law("nested", later.total_kept <= earlier.total_kept, "the mask got denser")
        else:
            law("nested", later <= earlier, "a weight that was removed came back, and the method has no regrow=True")
    law("costs", run.cost.samples_backward == task.counted["backward"], _ledger(run, task, "backward"))
    law("costs", run.cost.samples_forward == task.counted["forward"], _ledger(run, task, "forward"))
    again = find(replace(plain, forward=recomputed), method, run=WatchedRun(device=device))
    if not _same(again, ticket):
        again = find(plain, method, run=WatchedRun(device=device))
        law("same seed", _same(again, ticket), "the same seed gave another ticket")
        raise LawBroken("recomputation", "activation checkpointing gave another ticket")
    other = find(task, method, run=WatchedRun(seed=1, device=device))
    law("same seed", not _same(other, ticket), "another seed gave the same ticket")
    _check_start(ticket, task, [] if getattr(method, "continues", False) else run.begun)
    _check_round_trip(ticket)
    _check_training(ticket, task, device)
    _check_resume(method, plain, ticket, run)


class CountingTask(SupervisedTask):
    """A task that counts the samples that really go forward and backward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counted = {"forward": 0, "backward": 0}
        forward = self.forward

        def counting(model: nn.Module, inputs: Any) -> Any:
            # A trace on the meta device computes nothing, and a trial of the memory format is no part of the run.
            if inputs.device.type != "meta" and not is_trial():
                counted["forward"] += len(inputs)
                counted["backward"] += len(inputs) if torch.is_grad_enabled() else 0
            return forward(model, inputs)

        object.__setattr__(self, "forward", counting)  # the dataclass is frozen
        object.__setattr__(self, "counted", counted)

    counted: dict[str, int]


def _ledger(run: Run, task: CountingTask, direction: str) -> str:
    entry = getattr(run.cost, f"samples_{direction}")
    return f"{task.counted[direction]} samples went {direction}, the ledger says {entry}"


def _check_density(method: Method, ticket: Ticket, task: Task) -> None:
    parameters = parameters_of(task.build(0))
    chosen = getattr(method, "prunable", prunable)
    names = ticket.mask if isinstance(method.granularity, QueryKey) else chosen(task.build(0))
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


def _same(first: Ticket, second: Ticket) -> bool:
    return first.digest == second.digest


def _check_start(ticket: Ticket, task: Task, begun: Sequence[str]) -> None:
    started, start = digest_of(tensors_of(start_of(task, ticket, 0))), ticket.start
    if isinstance(start, Seed):
        built = Seed.of(task.build(start.seed), start.seed, start.weights, ticket.mask, ticket.held)
        law("rewind", started == built.digest, "the start is not the initialisation")
        law("rewind", len(set(begun)) <= 1, "a round did not train from the initialisation")
    else:
        law("rewind", started == start.digest, "the start values are not the ticket's")
        if start.what not in ("end", "transformed") and len(begun) > 1:
            law("rewind", set(begun[1:]) == {started}, f"a round did not train from the values at {start.what}")


def _check_round_trip(ticket: Ticket) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticket.safetensors"
        ticket.save(path)
        law("round trip", Ticket.load(path) == ticket, "the ticket's file gives another ticket")
        mask_only = not isinstance(ticket.start, Values)
        limit = ticket.mask.size / 8 + 4096 + 256 * len(ticket.mask)  # a bit a weight, settings, a header a tensor
        law("round trip", not mask_only or path.stat().st_size <= limit, f"its file takes {path.stat().st_size} bytes")


def _check_training(ticket: Ticket, task: Task, device: torch.device) -> None:
    model = start_of(task, ticket, 0).to(device)
    Run(0, device=device).stage("train", task, model, attached=ticket, observers=[DeadStaysDead(ticket.mask)])
    evaluate(task, model, "test", task.recipe)
    if ticket.removed:
        train(task, ticket, device=device)


def _check_resume(method: Method, task: SupervisedTask, ticket: Ticket, undisturbed: WatchedRun) -> None:
    steps = sum(len(fit.history) for fit in undisturbed.fits) * len(list(task.batches("train", 0, 0)))
    with tempfile.TemporaryDirectory() as folder:
        try:
            find(task, method, run=WatchedRun(0, Path(folder), steps // 2 + 2, undisturbed.device))
        except Killed:
            law("resume", steps > 0, "it was killed without training")
        run = WatchedRun(folder=Path(folder), device=undisturbed.device)
        law(
            "resume",
            _same(find(task, method, run=run), ticket),
            "killed and begun again, it found another ticket; what it learns outside of run.stage and run.once is "
            "lost, and an observer with a state needs state_dict and load_state_dict",
        )
        law("resume", _histories(run) == _histories(undisturbed), "killed and begun again, its history differs")
        resumed, whole = (_without_times(asdict(r.cost)) for r in (run, undisturbed))
        law("resume", resumed == whole, f"killed and begun again, its ledger differs: {resumed} is not {whole}")


def _histories(run: WatchedRun) -> list[list[dict[str, float]]]:
    return [[_without_times(row) for row in fit.history] for fit in run.fits]


def _without_times(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key not in ("seconds", "peak_memory")}
