"""What every framework's callback does: search or keep a ticket while something else trains, and draw it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from tombola.errors import TombolaError
from tombola.integrations.kept_ticket import KeptTicket, as_state, from_state
from tombola.methods import EarlyBird, Gradual, Iterative, MovingWatch, RigL, Round, SearchWarning, Watching
from tombola.scores import Inputs
from tombola.tickets import Mask, Ticket, modules_of

What = EarlyBird | Gradual | RigL | Round | Mask | Ticket


class Attendant:
    """Searches or keeps a ticket in the trainings of one callback.

    Args:
        what: a method that searches while the network trains, or what is kept: a mask, a ticket, a round.
        part: the name of the part of the model that it is about; empty for the whole.
        example: inputs on which that part can be called.
        seed: of what the method draws at random.

    Raises:
        TombolaError: if it is none of these.
    """

    def __init__(self, what: What, *, part: str = "", example: Inputs | None = None, seed: int = 0) -> None:
        if isinstance(what, Iterative):
            raise TombolaError(
                "iterative pruning needs several trainings; in `for round in method.rounds(model)` make a trainer for "
                "each round, and give its callback the round"
            )
        if not isinstance(what, EarlyBird | Gradual | RigL | Round | Mask | Ticket):
            name = type(what).__name__
            raise TombolaError(f"{name} does not search while you train; find a ticket with it first, and give that")
        if part and isinstance(what, Round):
            raise TombolaError("a round knows its model; leave part out")
        self._what, self._part, self._example, self._seed = what, part, example, seed
        self._watch: Watching | None = None
        self._loaded: Mapping[str, Any] = {}
        self._told = 0
        self.drawn: Ticket | None = None
        self.drawn_at: int | None = None

    @property
    def begun(self) -> bool:
        """Whether a training has begun."""
        return self._watch is not None

    @property
    def needs_state(self) -> bool:
        """Whether a training that goes on cannot do so without the state of this."""
        return not isinstance(self._what, Mask | Ticket) and not self._loaded

    @property
    def needs_steps(self) -> bool:
        """Whether it must know how many steps training takes."""
        return isinstance(self._what, Gradual | RigL)

    @property
    def ticket(self) -> Ticket:
        """What was drawn; before that, what would be drawn now."""
        if self.drawn is not None:
            return self.drawn
        if self._watch is None:
            raise TombolaError("there is no ticket before the training has begun")
        return self._watch.ticket

    def begin(self, model: nn.Module, optimizer: Any, steps: int | None, epochs: int) -> bool:
        """Begin with a training, or go on with one whose state was loaded; True when the ticket is drawn already.

        Args:
            model: the whole model that trains.
            optimizer: what trains it: one, a wrapper of one, or several.
            steps: how many optimizer steps the training will take.
            epochs: how many epochs it has behind it.
        """
        state, self._loaded = self._loaded, {}
        self.detach()
        self.drawn, self.drawn_at, self._told = None, None, 0
        if state.get("drawn"):
            self.drawn, self.drawn_at = from_state(state["drawn"]), state["told"]
        self._watch = self._watching(self.inside(model), optimizer, steps)
        if state:
            self._watch.load_state_dict(state["watch"])
            self._told = state["told"]
        if self.drawn is not None:
            self._watch.detach()
        # A checkpoint that was written at the very end of an epoch may not know that it ended.
        return self.epoch_end() if state and self._told < epochs else self.drawn is not None

    def epoch_end(self) -> bool:
        """Look, after an epoch; True when the ticket is drawn by now."""
        self._told += 1
        if self._watch is not None and self.drawn is None and self._watch.epoch_end():
            self.drawn, self.drawn_at = self._watch.ticket, self._told
            self._watch.detach()
        return self.drawn is not None

    def end(self) -> None:
        """Leave a plain model, with zeros where the mask has them; warn if the method has not come to its end."""
        if isinstance(self._watch, MovingWatch | KeptTicket):  # for what has averaged or loaded weights since
            self._watch.handle.exchange(self._watch.handle.mask)
        self.detach()
        if self._watch is not None and self.drawn is None and not self._watch.finished:
            warnings.warn(
                "training ended before the search did, so the ticket is the one of this moment (density "
                f"{self.ticket.density:.3g}); train longer, or say how many steps there are",
                SearchWarning,
                stacklevel=3,
            )

    def detach(self) -> None:
        """Remove all hooks."""
        if self._watch is not None:
            self._watch.detach()

    def state_dict(self) -> dict[str, Any]:
        """What goes into the framework's checkpoint: tensors, numbers and names."""
        if self._watch is None:
            return dict(self._loaded)
        drawn = None if self.drawn is None else as_state(self.drawn)
        return {"watch": self._watch.state_dict(), "told": self._told, "drawn": drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep a checkpoint's state until the training begins."""
        self._loaded = state

    def inside(self, model: nn.Module) -> nn.Module:
        """The part of a model that it is about."""
        modules = modules_of(model)
        if self._part not in modules:
            raise TombolaError(f"the model has no part '{self._part}'; give the name of one of its modules")
        return modules[self._part]

    def _watching(self, model: nn.Module, optimizer: Any, steps: int | None) -> Watching:
        match self._what:
            case Mask() | Ticket() | Round() as kept:
                return KeptTicket(kept, model, optimizer)
            case EarlyBird() as method:
                return method.watch(model, optimizer, self._example)
            case Gradual() as method:
                return method.watch(model, optimizer, steps=_known(steps), example=self._example)
            case RigL() as method:
                return method.watch(model, optimizer, steps=_known(steps), seed=self._seed)


def _known(steps: int | None) -> int:
    if steps is None:
        raise TombolaError("nobody knows how many steps training will take, on which the schedule rests; give steps=")
    return steps
