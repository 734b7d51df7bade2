"""What a control is made from, and what it trains."""

from __future__ import annotations

from dataclasses import dataclass

from tombola.methods import Method
from tombola.tickets import Ticket
from tombola.training import Run, Step, Task, epochs_spent


@dataclass(frozen=True)
class Arm:
    """What one arm of a comparison trains: a ticket (None: dense) on a task, for some epochs more than its recipe."""

    task: Task
    ticket: Ticket | None
    extra_epochs: float = 0.0


@dataclass(frozen=True)
class Against:
    """What a control is made from: the ticket, its task, the run's seed, and the method where one searched.

    run: of the control's own search, where it has one; in memory if None.
    """

    task: Task
    ticket: Ticket
    seed: int
    method: Method | None = None
    run: Run | None = None


def control_kind(name: str) -> str:
    """The control that a name asks for: `later` by `later@500it`; TombolaError for what is no point in training."""
    kind, at, step = name.partition("@")
    if at:
        Step.parse(step)
    return kind


def budget_gap(ticket: Ticket) -> float:
    """Epochs by which an arm from the initialisation must train longer to get what ticket and start got together.

    A ticket rewound to a step goes on from that point of the schedule, so its start is within the recipe.
    """
    return 0.0 if "start" in ticket.recipe else epochs_spent(ticket)
