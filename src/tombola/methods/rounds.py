"""Rounds of iterative pruning around anybody's own training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tombola.errors import TombolaError
from tombola.tickets import Handle, Mask, Optimizers, Ticket, Values, after_each_step, attach, steppers_of, tensors_of
from tombola.training import Step


@dataclass
class Rewinder:
    """The weights that come back after each round; it takes them by counting the first round's optimizer steps."""

    at: Step
    initial: Values
    taken: Values | None = None
    steps: int = 0

    def count(self, model: nn.Module) -> None:
        self.steps += 1
        if self.steps == self.at.count and self.taken is None:
            self.taken = Values(tensors_of(model), str(self.at))

    @property
    def values(self) -> Values:
        if self.at.count == 0:
            return self.initial
        if self.taken is None:
            raise TombolaError(
                f"the first round took {self.steps} optimizer steps, so there is nothing to rewind to at {self.at}; "
                "train longer, rewind to an earlier step, or train inside `with round.attach(optimizer)`"
            )
        return self.taken


@dataclass
class Round:
    """One round of `Iterative.rounds`: train `model` inside `with round.attach(optimizer)`.

    Args:
        index: the round's number, from 0.
        density: the share of units kept while this round trains.
        mask: the weights kept while this round trains.
        model: the network, on the values of `start`.
        start: the values from which the round trains.
    """

    index: int
    density: float
    mask: Mask
    model: nn.Module
    start: Values
    _counter: Callable[[nn.Module], None] | None = field(default=None, repr=False)

    @property
    def ticket(self) -> Ticket:
        """What this round trains, as a ticket."""
        return Ticket(self.mask, self.start)

    def attach(self, optimizer: Optimizers) -> Handle:
        """Keep this round's dead weights dead while the optimizer trains the model.

        Args:
            optimizer: one that holds the model's parameters, or all of several in a list or a dictionary. The steps of
                the last are counted, for a step to rewind to.

        Returns:
            A context manager that ends it; `detach()` does so as well.
        """
        handle = attach(self.mask, self.model, optimizer)
        if self._counter is not None:
            counter, model = self._counter, self.model

            def count(_: Any) -> None:
                counter(model)

            # Only the first round counts steps: those that are taken, which a wrapper may leave out.
            for stepper in steppers_of(optimizer)[-1:]:
                handle.also(after_each_step(stepper.inner[-1], count))
        return handle
