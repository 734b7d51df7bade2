"""What a study will cost, by what its networks compute and by what earlier runs took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from tombola.methods import label_of
from tombola.registry import METHODS
from tombola.studies.agenda import Agenda
from tombola.studies.grid import Grid, Stage
from tombola.studies.result import Result
from tombola.studies.task_options import task_title
from tombola.tickets import Ticket
from tombola.training import SampleFlops, first_of, own_randomness, train_samples


@dataclass(frozen=True)
class Price:
    """What is still to be done of one kind, and what it takes.

    Args:
        what: a search, or the training of a method's tickets and controls, or of the dense network.
        task: what is learnt.
        runs: how many there are.
        left: how many of them are not finished.
        epochs: of each; None where no earlier run shows it.
        flops: of each, in training; None likewise.
        seconds: of each, by what earlier runs took; None without such.
        words: what the registry says of the cost.
    """

    what: str
    task: str
    runs: int
    left: int
    epochs: float | None = None
    flops: float | None = None
    seconds: float | None = None
    words: str = ""

    @property
    def hours(self) -> float | None:
        """What is left of it takes so long on one worker."""
        return None if self.seconds is None else self.left * self.seconds / 3600


def prices(agenda: Agenda) -> list[Price]:
    """What each part of a study takes, search by search and method by method; until it is decided, of what is known."""
    return [price for place, own in enumerate(agenda.grids) for price in _of(own, agenda.stages(place), agenda)]


def _of(own: Grid, stages: Sequence[Stage], agenda: Agenda) -> list[Price]:
    task, most = own.plan.task, sum(len(stage.seeds) for stage in stages)
    name = task_title(getattr(task, "labels", {})) or type(task).__name__
    outcomes = [
        (run, agenda.outcome(run)) for run in agenda.known() if run.spec.task is task or _is_of(own, run.spec.task)
    ]
    results = [outcome for _, outcome in outcomes if isinstance(outcome, Result)]
    epochs, flops = task.recipe.epochs, _epoch_flops(own) * task.recipe.epochs
    found, arms = [], []
    for label, subject in own.subjects:
        repeats = sum(len(stage.seeds) for stage in stages for _, other in stage.subjects if other is subject)
        amount = f"{label} at {subject.density:.4g}"
        if not isinstance(subject, Ticket):
            costs = [
                outcome.provenance.cost
                for run, outcome in outcomes
                if isinstance(outcome, Ticket) and run.spec.subject is subject
            ]
            entry = METHODS.entries.get(label_of(subject).partition("(")[0])
            found.append(
                Price(
                    f"search {amount}",
                    name,
                    repeats,
                    repeats - len(costs),
                    _mean(cost.get("dense_epochs", 0.0) for cost in costs),
                    _mean(cost.get("flops", 0) for cost in costs),
                    _mean(cost.get("seconds", 0.0) for cost in costs),
                    entry.cost if entry is not None else "",
                )
            )
        runs = repeats * (1 + len(own.plan.controls))
        done = [one for one in results if one.method == label and math.isclose(one.density, subject.density)]
        arms.append(_training(f"train {amount} and controls", name, runs, done, results, epochs, flops))
    dense = [one for one in results if not one.method]
    return [*found, *arms, _training("train dense", name, max(most, len(dense)), dense, results, epochs, flops)]


def _training(
    what: str, task: str, runs: int, done: Sequence[Result], all_done: Sequence[Result], epochs: float, flops: float
) -> Price:
    """The price of trainings: what these took, else what others of the task took, else what can be computed."""
    seconds = _mean(one.training["seconds"] for one in done or all_done)
    return Price(what, task, runs, runs - len(done), epochs, flops, seconds)


def _is_of(own: Grid, task: object) -> bool:
    return getattr(task, "labels", None) == getattr(own.plan.task, "labels", ())


def _epoch_flops(own: Grid) -> float:
    """FLOPs of one epoch of dense training."""
    task, seed = own.plan.task, own.seeds[0]
    with own_randomness(torch.device("cpu"), seed):
        batches = task.batches("train", seed, 0)
        batch = first_of(batches)
    return SampleFlops.measure(task, task.build(seed), batch).training * train_samples(batches)


def _mean(values: Iterable[float]) -> float | None:
    given = list(values)
    return math.fsum(given) / len(given) if given else None
