"""A ticket that stays as it is while something else trains, and tickets in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tombola.errors import TombolaError
from tombola.methods import Round
from tombola.methods.own_loop import concerned
from tombola.tickets import Mask, Ticket, Values, attach, parameters_of, tensors_of


class KeptTicket:
    """Keeps a mask, a ticket or a round of pruning as it is; a `Watching` that never draws."""

    finished = True

    def __init__(self, what: Mask | Ticket | Round, model: nn.Module, optimizer: Any) -> None:
        self._what, self._model, self._epochs = what, model, 0
        self._mask = what if isinstance(what, Mask) else what.mask
        own = parameters_of(what.model if isinstance(what, Round) else model)
        optimizers = concerned(optimizer, [own[name] for name in self._mask if name in own])
        self.handle = what.attach(optimizers) if isinstance(what, Round) else attach(what, model, optimizers)

    @property
    def ticket(self) -> Ticket:
        match self._what:
            case Ticket() as ticket:
                return ticket
            case Round() as this:
                return this.ticket
            case Mask() as mask:
                return Ticket(mask, Values(tensors_of(self._model), f"{self._epochs}ep", self._epochs))

    def epoch_end(self) -> bool:
        self._epochs += 1
        return False

    def detach(self) -> None:
        self.handle.detach()

    def state_dict(self) -> dict[str, Any]:
        own = self._what.state_dict() if isinstance(self._what, Round) else None
        return {"mask": self._mask.digest, "epochs": self._epochs, "round": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if isinstance(self._what, Round) and state.get("round"):
            self._what.load_state_dict(state["round"])
        if state.get("mask") != self._mask.digest:
            raise TombolaError("the checkpoint is of a training with another mask; give the one that it began with")
        self._epochs = state["epochs"]


def as_state(ticket: Ticket) -> dict[str, Any]:
    """A ticket that was drawn in a training as tensors, numbers and names, for a framework's checkpoint."""
    assert isinstance(ticket.start, Values)
    return {
        "mask": dict(ticket.mask),
        "values": dict(ticket.start.tensors),
        "what": ticket.start.what,
        "epochs": ticket.start.epochs_spent,
        "removed": {group: list(units) for group, units in ticket.removed.items()},
    }


def from_state(state: Mapping[str, Any]) -> Ticket:
    """The ticket of which `as_state` made that."""
    removed = {group: tuple(units) for group, units in state["removed"].items()}
    return Ticket(Mask.of(state["mask"]), Values(state["values"], state["what"], state["epochs"]), removed=removed)
