"""What a control is made from, and what it trains."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from tombola.errors import TombolaError
from tombola.evidence.dead_paths import effective
from tombola.methods import Method
from tombola.tickets import Ticket
from tombola.training import Run, Step, Task, epochs_spent, own_randomness, seed_of, start_of


@dataclass(frozen=True)
class Arm:
    """What one arm of a comparison trains: a ticket (None: dense) on a task, for some epochs more than its recipe."""

    task: Task
    ticket: Ticket | None
    extra_epochs: float = 0.0

    def effective_density(self, seed: int) -> float | None:
        """The share of weights that are kept and lie on a path from input to output; None where that is not known."""
        if self.ticket is None:
            return None
        model = start_of(self.task, self.ticket, seed)
        with own_randomness(torch.device("cpu"), seed), contextlib.suppress(TombolaError):
            return effective(model, self.ticket.mask, self.task.batches("train", seed, 0), self.task.forward).density
        return None


@dataclass(frozen=True)
class Against:
    """What a control is made from: the ticket, its task, the run's seed, and the method where one searched.

    run: of the control's own search, with the same seed, where it has one; in memory if None.
    """

    task: Task
    ticket: Ticket
    seed: int
    method: Method | None = None
    run: Run | None = None

    def __post_init__(self) -> None:
        seed_of(self.seed, self.run)


def control_kind(name: str) -> str:
    """The control that a name asks for: `later` by `later@500it`; TombolaError for what is no point in training."""
    kind, at, step = name.partition("@")
    if at:
        Step.parse(step)
    return kind


def budget_gap(ticket: Ticket, task: Task) -> float:
    """Epochs by which an arm that trains by the task's recipe must train longer to get what ticket and start got.

    None where that is less than the recipe has. A ticket rewound to a step goes on from that point of the schedule, so
    its start is within the recipe.
    """
    if "start" in ticket.recipe:
        return 0.0
    own = task.recipe.epochs
    return max(0.0, epochs_spent(ticket) + ticket.recipe.get("epochs", own) - own)


def catching_up(own: Ticket, against: Against) -> float:
    """Epochs by which a control's ticket must train longer to get no less than the ticket that it is held against."""
    return max(0.0, budget_gap(against.ticket, against.task) - budget_gap(own, against.task))
