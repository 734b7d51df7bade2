"""Rounds of iterative pruning around anybody's own training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from tombola.errors import TombolaError
from tombola.methods.density_schedule import scope_at
from tombola.methods.own_loop import steps_of
from tombola.methods.protocol import Method
from tombola.methods.rewinding import KEEPS_WEIGHTS, step_of
from tombola.methods.score_freezing import SearchWarning
from tombola.scores import Batches, Forward, Loss, Score, View, as_summed, check_takes, probe_of
from tombola.structure import Prunable, UnitMap
from tombola.tickets import (
    Handle,
    Mask,
    Optimizers,
    Scope,
    Ticket,
    Values,
    after_each_step,
    attach,
    check_network,
    check_values,
    own_part,
    parameters_of,
    put_values,
    tensors_of,
    whole,
)
from tombola.training import Step, fingerprint, identity
from tombola.training.checkpoint import Checkpoint

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

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "rewind": None if self.taken is None else dict(self.taken.tensors)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        what = str(self.at) if self.at.count else "init"
        self.steps = state["steps"]
        self.taken = None if state["rewind"] is None else Values(state["rewind"], what)


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
    _rewinder: Rewinder | None = field(default=None, repr=False)  # only the first round counts steps

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
        if self._rewinder is not None:
            rewinder, model = self._rewinder, self.model

            def count(stepped: Any) -> None:
                if not _only_makes_state(stepped):
                    rewinder.count(model)

            # Only the first round counts steps: those that are taken, which a wrapper may leave out.
            for stepping in steps_of(optimizer)[-1:]:
                handle.also(after_each_step(stepping, count))
        return handle

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint within the round needs beside model and optimizer: how far a step to rewind to is."""
        return {"index": self.index, "rewinding": self._rewinder.state_dict() if self._rewinder else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on within the round; TombolaError if the state is of another one."""
        if not isinstance(state, Mapping) or state.keys() != {"index", "rewinding"}:
            raise TombolaError("this is not the state of a round; give what round.state_dict() gave")
        if state["index"] != self.index:
            raise TombolaError(
                f"this is the state of round {state['index']}, and round {self.index} is to go on; give each round a "
                "folder of checkpoints of its own"
            )
        if self._rewinder is not None:
            self._rewinder.load_state_dict(state["rewinding"])


class PrunesInRounds(Method, Protocol):
    """What `Rounds` takes of a method that prunes in rounds."""

    @property
    def score(self) -> Score: ...

    @property
    def scope(self) -> Scope: ...

    @property
    def floor(self) -> int: ...

    @property
    def rewind(self) -> str: ...

    @property
    def prunable(self) -> Prunable: ...

    def levels(self, units: UnitMap) -> list[float]:
        """The density after each round, for the units of a network."""
        ...


class Rounds(Iterator[Round]):
    """The rounds that `Iterative.rounds` gives, one after another.

    A checkpoint in the middle of a round needs `state_dict()` beside the values of your model and your optimizer. After
    `load_state_dict` the same round comes again; load the model and the optimizer yourself, before or inside it. With a
    folder this is done at the beginning of each round.

    Args:
        method: what prunes between two rounds.
        model, batches, loss, forward, folder: see `Iterative.rounds`.
    """

    def __init__(
        self,
        method: PrunesInRounds,
        model: nn.Module,
        batches: Batches,
        loss: Loss | None,
        forward: Forward,
        folder: str | Path | None,
    ) -> None:
        check_network(model)
        self._method, self._model = method, model
        self._batches, self._loss, self._forward = batches, loss, forward
        self._units = method.granularity.units(model, probe_of(batches, forward))
        self._score = as_summed(method.score, method.granularity, model, probe_of(batches, forward))
        self._levels = [1.0, *method.levels(self._units)]
        self._start = Values(tensors_of(model), "init")
        at = step_of(method.rewind)
        self._rewinder = Rewinder(at, None if at.count or self._keeps_weights else self._start)
        self._kept: Mask | None = None
        self._mask = Mask.full(method.prunable(model))
        self._index, self._given = 0, False
        self._file = None if folder is None else RoundsFile(Path(folder), method)
        if self._file is not None and (state := self._file.load()) is not None:
            with self._file.fitting():
                self.load_state_dict(state)
                put_values(model, self._start.tensors)

    def __next__(self) -> Round:
        if self._given:
            self._look_back()
            if self._index + 1 == len(self._levels):
                raise StopIteration
            self._prune()
        self._given = True
        if self._file is not None:
            self._file.save(self.state_dict())
        rewinder = self._rewinder if self._index == 0 else None
        return Round(self._index, self._levels[self._index], self._mask, self._model, self._start, rewinder)

    def _look_back(self) -> None:
        """Warn if dead weights moved while the round was trained."""
        parameters = parameters_of(self._model)
        for name in self._mask:
            own, start = whole(parameters[name]).detach(), self._start.tensors[name].to(parameters[name].device)
            dead = ~self._mask[name].to(own.device)
            if bool((dead & (own != 0) & (own != start)).any()):
                warnings.warn(
                    f"dead weights of '{name}' moved in round {self._index}, which therefore trained no ticket; train "
                    "it inside `with round.attach(optimizer)`",
                    SearchWarning,
                    stacklevel=3,
                )
                return

    @property
    def _keeps_weights(self) -> bool:
        return self._method.rewind in KEEPS_WEIGHTS

    def _prune(self) -> None:
        """Choose the next round's mask, and put back the values that it starts from."""
        method, density = self._method, self._levels[self._index + 1]
        view = View(mask=self._mask, prunable=method.prunable, forward=self._forward)
        check_takes(self._score, view)
        found = self._score(self._model, self._batches, self._loss, **view)
        scores = {name: whole(score) for name, score in found.items()}
        scope, share = scope_at(method.scope, density, self._levels[-1])
        self._kept = self._units.choose(scores, share, scope=scope, within=self._kept, floor=method.floor)
        self._mask = self._units.expand(self._kept, tensors_of(self._model))
        self._start = Values(tensors_of(self._model), "end") if self._keeps_weights else self._rewinder.values
        put_values(self._model, self._start.tensors)
        self._index += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on with this round: numbers and whole tensors, equal on all processes."""
        return self._rewinder.state_dict() | {
            "round": self._index,
            "kept": None if self._kept is None else dict(self._kept),
            "start": dict(self._start.tensors),
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
        self._rewinder.load_state_dict(state)


class RoundsFile:
    """The file in which rounds are kept, so that a killed program goes on with the round that it was in.

    Args:
        folder: where the file is.
        method: whose rounds they are; those of another are refused.
    """

    def __init__(self, folder: Path, method: object) -> None:
        self._folder, self._checkpoint = folder, Checkpoint(folder / "rounds.pt")
        self._settings = fingerprint(identity(method))

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state of the rounds."""
        self._checkpoint.save({"settings": self._settings, "state": state})

    def load(self) -> dict[str, Any] | None:
        """The state that was kept; None if there is none. TombolaError if it is of another method or other settings."""
        saved = self._checkpoint.load()
        if saved is not None and saved.get("settings") != self._settings:
            raise TombolaError(
                f"{self._folder} holds rounds with other settings; give another folder, or those settings"
            )
        return None if saved is None else saved.get("state")

    def fitting(self) -> AbstractContextManager[None]:
        """Where a state that was loaded is put back."""
        return self._checkpoint.fitting()


def _only_makes_state(stepped: Any) -> bool:
    """Whether a step had no gradient and no learning rate, as torch.distributed.checkpoint takes one to make state."""
    if any(group.get("lr", 1) for group in stepped.param_groups):
        return False
    gradients = [p.grad for group in stepped.param_groups for p in group["params"] if p.grad is not None]
    return not any(own_part(gradient).any() for gradient in gradients)
