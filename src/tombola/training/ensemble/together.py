"""Training many networks of one architecture at once, each as if it trained alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from tombola.training.ensemble.member import Member
from tombola.training.loop import Diverged, evaluate
from tombola.training.progress import bars
from tombola.training.randomness import own_randomness
from tombola.training.run import Run
from tombola.training.task import Task
from tombola.training.train import Trained


def train_together(
    task: Task, members: Sequence[Member], *, run: Run | None = None, chunk: int | None = None
) -> list[Trained]:
    """Train many networks of one architecture at once; what each came to, in order, as if it had trained alone.

    Members may differ in seeds, masks, starts, learning rates and schedules; each draws the batches of its own seed. A
    network whose loss stops being finite does not stop the others: its result says so. run: device, bars, meter, and the
    folder from which a killed training goes on. chunk: how many are trained at a time, as many as the caches hold if
    None. Seconds, energy and carbon of a result are its share of what all took.
    """
    if run is None:
        with bars() as shown:
            return train_together(task, members, run=Run(bars=shown), chunk=chunk)
    results = []
    with run.bars.track("networks", len(members)) as tick:
        for member in members:
            results.append(_alone(task, member, run))
            tick(f"{results[-1].metric:.1%}")
    return results


def _alone(task: Task, member: Member, run: Run) -> Trained:
    """One network trained by itself, in the one loop."""
    model, recipe = member.build(task).to(run.device), member.recipe_on(task)
    own = Run(member.seed, None, run.device, run.bars, meter=run.meter)
    diverged = ""
    try:
        done = own.stage("train", task, model, recipe=recipe, attached=member.attached)
        history, cost = done.history, done.cost
    except Diverged as error:
        history, cost, diverged = (), own.cost, str(error)
    return finished(task, model, member, recipe.epochs, history, cost, run, diverged=diverged)


def finished(task: Task, model: nn.Module, member: Member, epochs, history, cost, run: Run, **said) -> Trained:
    """A trained network with its metric on the test split."""
    with own_randomness(run.device, member.seed):
        metric, loss, _ = evaluate(task, model, "test", member.recipe_on(task))
    validation = history[-1].get("validation_metric", math.nan) if history else math.nan
    return Trained(model, metric, loss, validation, epochs, history, cost, **said)
