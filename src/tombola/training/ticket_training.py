"""Training a ticket, or the dense network, and reading the test split once."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.shrinking import Plan, ShrinkWarning, smaller
from tombola.tickets import Seed, Ticket, Values
from tombola.training.cost import Cost, SampleFlops
from tombola.training.devices import agreed_device
from tombola.training.evaluation import evaluate
from tombola.training.first_batch import check_first_batch
from tombola.training.loaders import first_of
from tombola.training.progress import bars
from tombola.training.randomness import own_randomness
from tombola.training.recipe import Recipe
from tombola.training.run import Run, seed_of
from tombola.training.task import Task

ROUNDS = 10
"""How many times as long as it trains itself a ticket may have been searched, of what is absurd for one training."""


@dataclass(frozen=True)
class Trained:
    """A trained network and what it came to.

    Args:
        model: the network after its last epoch.
        metric: on the test split.
        loss: on the test split.
        validation: the metric on the validation split after the last epoch; NaN without such a split.
        epochs: of the whole schedule.
        history: one row an epoch.
        cost: what the training took, its dense epochs in those of the whole network.
        plan: what was cut out and what is still dead, if a ticket of whole channels trained as the smaller network.
        together: how many networks trained at once; 1 if this one trained alone.
        alone: why it trained alone, if it was to train with others.
        diverged: the step at which the loss stopped being finite, if that did not stop the others.
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
    device: torch.device | str = "auto",
    run: Run | None = None,
    small: bool = True,
) -> Trained:
    """Train a ticket from its start, or without one the dense network from its initialisation.

    The test split is read once, at the end.

    Args:
        task: gives network, data, loss, metric and recipe.
        ticket: its mask, start, held parameters and recipe; None trains the dense network.
        seed: of the order of the data and of all that is random; None takes the run's, or 0 without a run.
        init_seed: of the dense network's initialisation; `seed` if None.
        extra_epochs: lengthens the schedule, rounded up. An arm gets them to have as much training as another arm
            whose start was already trained.
        device: where the network trains: the run's, or without a run CUDA if there is one, else the CPU; or one of your
            choice, as `cuda:1`.
        run: folder, device, bars and meter; in memory if None.
        small: train a ticket of whole channels as the smaller network that it is, unless it leaves the others frozen.

    Returns:
        The trained network with its metrics, history and cost.

    Raises:
        Diverged: if the loss stops being finite.
        TombolaError: if `seed` or `device` is not the run's, there is no such device, the ticket does not fit the task,
            or the task's first batch shows that it cannot be learnt.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> task = toy_task()
        >>> ticket = tb.find(task, tb.OneShot(density=0.5), seed=0)
        >>> result = tb.train(task, ticket, seed=0)
        >>> result.epochs, len(result.history)
        (2, 2)
    """
    seed, device = seed_of(seed, run), agreed_device(device, None if run is None else run.device)
    if run is None:
        with bars() as shown:
            run = Run(seed, device=device, bars=shown)
            return train(task, ticket, seed=seed, init_seed=init_seed, extra_epochs=extra_epochs, run=run, small=small)
    check_first_batch(task, seed, run.device)
    recipe = recipe_of(task, ticket, extra_epochs)
    model = start_of(task, ticket, seed if init_seed is None else init_seed).to(run.device)
    attached, plan, share = ticket, None, 1.0
    if ticket is not None and ticket.removed and small and ticket.dead == "zero":
        try:
            small_model, plan = smaller(model, ticket, run.probe(task))
            attached, share = replace(ticket, mask=plan.mask), share_of_work(task, small_model, model, seed)
            model = small_model
        except TombolaError as error:
            warnings.warn(f"the masked network is trained, not a smaller one: {error}", ShrinkWarning, stacklevel=2)
    training = run.stage("train", task, model, recipe=recipe, attached=attached)
    with own_randomness(run.device, seed):
        metric, loss, _ = evaluate(task, model, "test", recipe)
    # A ticket that starts at the end of the schedule trains no epoch that would have measured it.
    last = training.validation if training.history else run.validate(task, model, recipe)
    validation = math.nan if last is None else last
    cost = replace(training.cost, dense_epochs=share * training.cost.dense_epochs)
    return Trained(model, metric, loss, validation, recipe.epochs, training.history, cost, plan, training.together)


def share_of_work(task: Task, small: nn.Module, whole: nn.Module, seed: int) -> float:
    """FLOPs of a training step on a smaller network, as a share of those on the whole network.

    Args:
        task: gives batches, forward pass and loss.
        small: the smaller network.
        whole: the network that it was cut from.
        seed: of the batch that is counted.
    """
    batch = first_of(task.batches("train", seed, 0))
    small_flops, whole_flops = (SampleFlops.measure(task, network, batch).training for network in (small, whole))
    return small_flops / whole_flops


def recipe_of(task: Task, ticket: Ticket | None, extra_epochs: float = 0.0) -> Recipe:
    """The recipe by which a ticket trains.

    Args:
        task: gives the recipe.
        ticket: replaces those of its fields that the ticket prescribes.
        extra_epochs: lengthen the schedule, rounded up.

    Raises:
        TombolaError: if the ticket prescribes a field that no recipe has.
    """
    prescribed = dict(ticket.recipe) if ticket else {}
    Recipe.check_fields(prescribed)
    if ticket:
        check_length(ticket, task.recipe)
    recipe = replace(task.recipe, **prescribed)
    return replace(recipe, epochs=recipe.epochs + math.ceil(extra_epochs))


def check_length(ticket: Ticket, recipe: Recipe) -> None:
    """Refuse a ticket that asks for far more training than its task: it may be anybody's.

    Args:
        ticket: prescribes epochs, or says how many its start had, which dense and the controls get too.
        recipe: of the task, as its user chose it.

    Raises:
        TombolaError: they prescribe more than `Recipe.longest` of it, or had more than ten times that.
    """
    asked = (("prescribes", ticket.recipe.get("epochs", 0), 1), ("starts after", epochs_spent(ticket), ROUNDS))
    for what, epochs, times in asked:
        if isinstance(epochs, int | float) and epochs > times * recipe.longest:
            raise TombolaError(
                f"the ticket {what} {epochs:,.10g} epochs, and its task is learnt in {recipe.epochs:,}; if that is "
                f"meant, let the task's recipe have {math.ceil(epochs * recipe.epochs / (times * recipe.longest)):,}"
            )


def start_of(task: Task, ticket: Ticket | None, seed: int) -> nn.Module:
    """Build the network at the values from which training starts.

    Args:
        task: builds the network.
        ticket: gives the values; None leaves the initialisation as it is.
        seed: of the initialisation, unless the ticket's start has a seed of its own.
    """
    if ticket is None:
        return task.build(seed)
    model = task.build(ticket.start.seed if isinstance(ticket.start, Seed) else seed)
    ticket.put_into(model)
    return model


def epochs_spent(ticket: Ticket) -> float:
    """Epochs of training that went into a ticket's start; 0 if it starts from an initialisation."""
    return ticket.start.epochs_spent if isinstance(ticket.start, Values) else 0.0
