"""Arms of a comparison: what a control is made from, and what an arm trains."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from tombola.errors import TombolaError
from tombola.evidence.dead_paths import effective
from tombola.methods import Method
from tombola.nested import mapped
from tombola.scores import Batch, batch_size, suited
from tombola.shrinking import smaller
from tombola.tickets import Mask, Ticket, parameters_of
from tombola.training import (
    Run,
    Step,
    Task,
    check_length,
    epochs_spent,
    first_of,
    own_randomness,
    seed_of,
    share_of_work,
    start_of,
)

FEW = 4
"""On how many samples a smaller network is compared with the masked one, where it is only counted."""


@dataclass(frozen=True)
class Arm:
    """What one arm of a comparison trains.

    Args:
        task: the task that the arm trains on.
        ticket: the ticket that it trains; None for the dense network.
        extra_epochs: epochs beyond those of the recipe.
    """

    task: Task
    ticket: Ticket | None
    extra_epochs: float = 0.0

    def network_density(self, seed: int) -> float:
        """The kept share of all parameters of the network, those included that could not be pruned.

        Args:
            seed: of the network that the task builds.
        """
        return 1.0 if self.ticket is None else self.ticket.mask.density_of(parameters_of(self.task.build(seed)))

    def effective_density(self, seed: int) -> float | None:
        """The share of weights that the mask keeps and that lie on a path from input to output.

        Args:
            seed: decides the start of the ticket and the batch that shows the network's inputs.

        Returns:
            A share of the mask's weights, in [0, 1]; None for the dense network, and where SynFlow cannot score.
        """
        if self.ticket is None:
            return None
        if self.ticket.dead == "frozen":  # the other weights stay, and paths through them
            return self.ticket.density
        model = start_of(self.task, self.ticket, seed)
        # A score that this network refuses leaves the density unknown; the arm itself can still train.
        with own_randomness(torch.device("cpu"), seed), contextlib.suppress(TombolaError):
            return effective(model, self.ticket.mask, self.task.batches("train", seed, 0), self.task.forward).density
        return None

    def alive_flops(self, seed: int) -> float | None:
        """FLOPs of a training step of the network without what the ticket leaves whole units of dead.

        Args:
            seed: decides the start of the ticket and the batch that is counted.

        Returns:
            A share of the whole network's; None for the dense network, and where the network cannot be cut.
        """
        if self.ticket is None:
            return None
        if self.ticket.dead == "frozen" or not _has_dead_line(self.ticket.mask):
            return 1.0
        model = start_of(self.task, self.ticket, seed)
        # Nobody asked for the smaller network, so that nothing that is wrong with it may end or disturb a run.
        with warnings.catch_warnings(), contextlib.suppress(Exception), own_randomness(torch.device("cpu"), seed):
            warnings.simplefilter("ignore")
            inputs = _few_of(first_of(self.task.batches("train", seed, 0)))
            small, _ = smaller(model, self.ticket, lambda own: self.task.forward(own, suited(inputs, own)))
            return share_of_work(self.task, small, model, seed)
        return None


@dataclass(frozen=True)
class Against:
    """The ticket that a control stands against, with all that the control is made from.

    Args:
        task: the ticket's task.
        ticket: the ticket.
        seed: the seed of the run, 0 or larger.
        method: the method that found the ticket; None where it is not known.
        run: where the search of a control that searches anew is kept, with the same seed; in memory if None.

    Raises:
        TombolaError: if `run` has another seed.
    """

    task: Task
    ticket: Ticket
    seed: int
    method: Method | None = None
    run: Run | None = None

    def __post_init__(self) -> None:
        seed_of(self.seed, self.run)


def _few_of(batch: Batch) -> Any:
    """The inputs of the first samples of a batch, on which it is quick to compare networks in float64."""
    size = batch_size(batch)
    return mapped(batch[0], lambda own: own[:FEW] if own.shape[:1] == (size,) else own)


def _has_dead_line(mask: Mask) -> bool:
    """Whether some tensor has an output or an input without any weight, as all that can be cut out has."""
    return any(
        not bits.flatten(1).any(1).all() or not bits.transpose(0, 1).flatten(1).any(1).all()
        for name in mask
        if (bits := mask[name]).ndim > 1
    )


def control_kind(name: str) -> str:
    """The control that a name asks for, without the step after "@".

    Raises:
        TombolaError: if what follows "@" is not a step of training.

    Examples:
        >>> control_kind("later@500it"), control_kind("shuffle")
        ('later', 'shuffle')
    """
    kind, at, step = name.partition("@")
    if at:
        Step.parse(step)
    return kind


def budget_gap(ticket: Ticket, task: Task) -> float:
    """The epochs beyond the recipe that give another arm as much training as the ticket and its start have together.

    Args:
        ticket: the ticket that the other arm is compared with.
        task: its recipe is the one that the other arm trains by.

    Returns:
        Epochs, 0 or more. A ticket rewound to a step goes on in the schedule at that step, so that the recipe holds its
        start and its training, and the gap is 0.

    Examples:
        >>> from tombola.methods import OneShot, find
        >>> from tombola.testing import toy_task
        >>> task = toy_task(epochs=1)
        >>> budget_gap(find(task, OneShot(density=0.5), seed=0, progress=False), task)
        0.0
    """
    if "start" in ticket.recipe:
        return 0.0
    epochs = task.recipe.epochs
    check_length(ticket, task.recipe)
    return max(0.0, epochs_spent(ticket) + ticket.recipe.get("epochs", epochs) - epochs)


def catching_up(control: Ticket, against: Against) -> float:
    """The epochs that a control's ticket lacks to train for as long as the ticket that it stands against."""
    return max(0.0, budget_gap(against.ticket, against.task) - budget_gap(control, against.task))
