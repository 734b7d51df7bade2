"""Training a ticket, or the dense network, and reading the test split once."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

from torch import nn

from tombola.errors import TombolaError
from tombola.shrinking import Plan, ShrinkWarning, smaller
from tombola.tickets import Seed, Ticket, Values
from tombola.training.cost import Cost, SampleFlops
from tombola.training.loop import evaluate
from tombola.training.progress import bars
from tombola.training.randomness import own_randomness
from tombola.training.recipe import Recipe
from tombola.training.run import Run, seed_of
from tombola.training.task import Task


@dataclass(frozen=True)
class Trained:
    """A trained network: metric and loss on the test split, validation metric, history, cost.

    plan: where a ticket of whole channels trained as the smaller network, what was cut out, and what is still dead.
    together: how many networks trained at once, 1 if this one trained alone; alone: why, where others were to train
    with it; diverged: at which step the loss stopped being finite, where that does not stop the others.
    """

    model: nn.Module
    metric: float
    loss: float
    validation: float
    epochs: int
    history: tuple[dict[str, float], ...]
    cost: Cost
    plan: Plan | None = None
    together: int = 1
    alone: str = ""
    diverged: str = ""


def train(
    task: Task,
    ticket: Ticket | None = None,
    *,
    seed: int | None = None,
    init_seed: int | None = None,
    extra_epochs: float = 0.0,
    run: Run | None = None,
    small: bool = True,
) -> Trained:
    """Train a ticket from its start, or without one the dense network from its initialisation.

    seed orders the data and draws all that is random, the run's if None, or 0 without one; init_seed is that of the
    dense network's initialisation, `seed` if None; extra_epochs lengthens the schedule, for an arm that must get as
    much training as another whose start was already trained. small: train a ticket of whole channels as the smaller
    network that it is.
    """
    seed = seed_of(seed, run)
    if run is None:
        with bars() as shown:
            run = Run(seed, bars=shown)
            return train(task, ticket, seed=seed, init_seed=init_seed, extra_epochs=extra_epochs, run=run, small=small)
    recipe = recipe_of(task, ticket, extra_epochs)
    model = start_of(task, ticket, seed if init_seed is None else init_seed).to(run.device)
    attached, plan, share = ticket, None, 1.0
    if ticket is not None and ticket.removed and small:
        try:
            small_model, plan = smaller(model, ticket, run.probe(task))
            attached, share = replace(ticket, mask=plan.mask), share_of_work(task, small_model, model, seed)
            model = small_model
        except TombolaError as error:
            warnings.warn(f"the masked network is trained, not a smaller one: {error}", ShrinkWarning, stacklevel=2)
    done = run.stage("train", task, model, recipe=recipe, attached=attached)
    with own_randomness(run.device, seed):
        metric, loss, _ = evaluate(task, model, "test", recipe)
    last = done.validation if done.history else run.validate(task, model, recipe)
    validation = math.nan if last is None else last
    cost = replace(done.cost, dense_epochs=share * done.cost.dense_epochs)
    return Trained(model, metric, loss, validation, recipe.epochs, done.history, cost, plan, done.together)


def share_of_work(task: Task, small: nn.Module, whole: nn.Module, seed: int) -> float:
    """FLOPs of a training step on a smaller network over those on the whole one."""
    batch = next(iter(task.batches("train", seed, 0)))
    less, more = (SampleFlops.measure(task, network, batch).training for network in (small, whole))
    return less / more


def recipe_of(task: Task, ticket: Ticket | None, extra_epochs: float = 0.0) -> Recipe:
    """The task's recipe with what the ticket prescribes, lengthened by whole epochs."""
    prescribed = dict(ticket.recipe) if ticket else {}
    Recipe.check_fields(prescribed)
    recipe = replace(task.recipe, **prescribed)
    return replace(recipe, epochs=recipe.epochs + math.ceil(extra_epochs))


def start_of(task: Task, ticket: Ticket | None, seed: int) -> nn.Module:
    """A network at the values from which the ticket (or the dense network) trains."""
    if ticket is None:
        return task.build(seed)
    model = task.build(ticket.start.seed if isinstance(ticket.start, Seed) else seed)
    ticket.put_into(model)
    return model


def epochs_spent(ticket: Ticket) -> float:
    """Epochs of training that a ticket's start already had."""
    return ticket.start.epochs_spent if isinstance(ticket.start, Values) else 0.0
