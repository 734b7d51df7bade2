"""Rounds of iterative pruning around anybody's own training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from tombola.errors import TombolaError
from tombola.methods.density_schedule import scope_at
from tombola.methods.rewinding import KEEPS_WEIGHTS, step_of
from tombola.scores import Batches, Forward, Loss, View, check_takes, probe_of
from tombola.tickets import (
    Handle,
    Mask,
    Optimizers,
    Ticket,
    Values,
    after_each_step,
    attach,
    check_values,
    own_part,
    put_values,
    steppers_of,
    tensors_of,
    whole,
)
from tombola.training import Step

if TYPE_CHECKING:
    from tombola.methods.iterative import Iterative

STATE = {"round", "steps", "kept", "start", "rewind"}


@dataclass
class Rewinder:
    """The weights that come back after each round; it takes them by counting the first round's optimizer steps."""

    at: Step
    taken: Values | None
    steps: int = 0

    def count(self, model: nn.Module) -> None:
        self.steps += 1
        if self.steps == self.at.count and self.taken is None:
            self.taken = Values(tensors_of(model), str(self.at))

    @property
    def values(self) -> Values:
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

            def count(stepped: Any) -> None:
                if not _only_makes_state(stepped):
                    counter(model)

            # Only the first round counts steps: those that are taken, which a wrapper may leave out.
            for stepper in steppers_of(optimizer)[-1:]:
                handle.also(after_each_step(stepper.inner[-1], count))
        return handle


class Rounds(Iterator[Round]):
    """The rounds that `Iterative.rounds` gives, one after another.

    A checkpoint in the middle of a round needs `state_dict()` beside the values of your model and your optimizer. After
    `load_state_dict` the same round comes again; load the model and the optimizer yourself, before or inside it.

    Args:
        method: what prunes between two rounds.
        model, batches, loss, forward: see `Iterative.rounds`.
    """

    def __init__(
        self, method: Iterative, model: nn.Module, batches: Batches, loss: Loss | None, forward: Forward
    ) -> None:
        self._method, self._model = method, model
        self._batches, self._loss, self._forward = batches, loss, forward
        self._units = method.granularity.units(model, probe_of(batches, forward))
        self._levels = [1.0, *method.levels(self._units)]
        self._start = Values(tensors_of(model), "init")
        at = step_of(method.rewind)
        self._rewinder = Rewinder(at, None if at.count or self._keeps_weights else self._start)
        self._kept: Mask | None = None
        self._mask = Mask.full(method.prunable(model))
        self._index, self._given = 0, False

    def __next__(self) -> Round:
        if self._given:
            if self._index + 1 == len(self._levels):
                raise StopIteration
            self._prune()
        self._given = True
        counter = self._rewinder.count if self._index == 0 else None
        return Round(self._index, self._levels[self._index], self._mask, self._model, self._start, counter)

    @property
    def _keeps_weights(self) -> bool:
        return self._method.rewind in KEEPS_WEIGHTS

    def _prune(self) -> None:
        """Choose the next round's mask, and put back the values that it starts from."""
        method, density = self._method, self._levels[self._index + 1]
        view = View(mask=self._mask, prunable=method.prunable, forward=self._forward)
        check_takes(method.score, view)
        found = method.score(self._model, self._batches, self._loss, **view)
        scores = {name: whole(score) for name, score in found.items()}
        scope, share = scope_at(method.scope, density, self._levels[-1])
        self._kept = self._units.choose(scores, share, scope=scope, within=self._kept, floor=method.floor)
        self._mask = self._units.expand(self._kept, tensors_of(self._model))
        self._start = Values(tensors_of(self._model), "end") if self._keeps_weights else self._rewinder.values
        put_values(self._model, self._start.tensors)
        self._index += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on with this round: numbers and whole tensors, equal on all processes."""
        taken = self._rewinder.taken
        return {
            "round": self._index,
            "steps": self._rewinder.steps,
            "kept": None if self._kept is None else dict(self._kept),
            "start": dict(self._start.tensors),
            "rewind": None if taken is None else dict(taken.tensors),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the round of which `state_dict()` gave this; the model keeps the values that it has.

        Raises:
            TombolaError: if it is the state of something else, of another network, or of more rounds.
        """
        if not isinstance(state, Mapping) or state.keys() != STATE:
            raise TombolaError("this is not the state of rounds; give what rounds.state_dict() gave")
        if state["round"] >= len(self._levels):
            raise TombolaError(
                f"the state is of round {state['round']}, and these rounds end with round {len(self._levels) - 1}; "
                "give the method the settings that it had"
            )
        for values in (state["start"], state["rewind"] or state["start"]):
            check_values(self._model, values)
        if state["kept"] is not None:
            self._kept = Mask.of(state["kept"])
            self._mask = self._units.expand(self._kept, tensors_of(self._model))
        self._index, self._given = state["round"], False
        later = "end" if self._keeps_weights else str(self._rewinder.at) if self._rewinder.at.count else "init"
        self._start = Values(state["start"], later if self._index else "init")
        self._rewinder.steps = state["steps"]
        self._rewinder.taken = None if state["rewind"] is None else Values(state["rewind"], later)


def _only_makes_state(stepped: Any) -> bool:
    """Whether a step had no gradient and no learning rate, as torch.distributed.checkpoint takes one to make state."""
    if any(group.get("lr", 1) for group in stepped.param_groups):
        return False
    gradients = [p.grad for group in stepped.param_groups for p in group["params"] if p.grad is not None]
    return not any(own_part(gradient).any() for gradient in gradients)
