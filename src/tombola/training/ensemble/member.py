"""The members of an ensemble: what its networks may differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from tombola.tickets import Mask, Ticket, digest_of, tensors_of
from tombola.training.identities import data_digest, fingerprint, functions_of, identity
from tombola.training.recipe import Recipe
from tombola.training.task import Task
from tombola.training.ticket_training import recipe_of, start_of


@dataclass(frozen=True)
class Member:
    """One network of an ensemble.

    Args:
        seed: of the order of the data.
        attached: a mask (of any parameters, biases too) on the dense network's initialisation; or a ticket with its own
            start, held parameters and recipe. None trains the dense network.
        init_seed: of the dense network's initialisation; `seed` if None.
        recipe: fields of the task's recipe, or of the ticket's, to replace.

    Examples:
        >>> from tombola.testing import toy_task
        >>> Member(seed=1, recipe={"lr": 0.2}).recipe_on(toy_task()).lr
        0.2
    """

    seed: int = 0
    attached: Mask | Ticket | None = None
    init_seed: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ticket(self) -> Ticket | None:
        """The ticket, if it trains one."""
        return self.attached if isinstance(self.attached, Ticket) else None

    @property
    def mask(self) -> Mask:
        """The mask, which is empty for a dense network."""
        return self.attached if isinstance(self.attached, Mask) else self.ticket.mask if self.ticket else Mask({})

    def recipe_on(self, task: Task) -> Recipe:
        """The recipe by which it trains; TombolaError for a field that no recipe has."""
        Recipe.check_fields(self.recipe)
        return replace(recipe_of(task, self.ticket), **self.recipe)

    def build(self, task: Task) -> nn.Module:
        """The network at the values from which it trains, on the CPU; a mask's dead weights are not yet zero."""
        return start_of(task, self.ticket, self.seed if self.init_seed is None else self.init_seed)

    def settings(self, task: Task) -> dict[str, Any]:
        """All that decides its result on the task's data, as JSON."""
        model = self.build(task)
        return {
            "seed": self.seed,
            "recipe": identity(self.recipe_on(task)),
            "attached": None if self.attached is None else self.attached.digest,
            "smaller": self.ticket is not None and bool(self.ticket.removed),
            "network": repr(model),
            "values": digest_of(tensors_of(model)),
        }


def fingerprint_of(task: Task, members: Sequence[Member]) -> str:
    """A fingerprint of all that decides the results of these members when they train at once."""
    settings = {
        "data": data_digest(task),
        "calls": [identity(function) for function in functions_of(task).values()],
        "members": [member.settings(task) for member in members],
    }
    return fingerprint(settings)
