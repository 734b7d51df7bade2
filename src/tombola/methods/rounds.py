"""Rounds of iterative pruning around anybody's own training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tombola.errors import TombolaError
from tombola.methods.own_loop import steps_of
from tombola.tickets import Handle, Mask, Optimizers, Ticket, Values, after_each_step, attach, tensors_of
from tombola.training import Step, fingerprint, identity
from tombola.training.checkpoint import Checkpoint


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

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "taken": None if self.taken is None else dict(self.taken.tensors)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        self.taken = None if state["taken"] is None else Values(state["taken"], str(self.at))


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
                the last of them are counted, for a step to rewind to.

        Returns:
            A context manager that ends it; `detach()` does so as well.
        """
        handle = attach(self.mask, self.model, optimizer)
        if self._rewinder is not None:
            rewinder, model = self._rewinder, self.model

            def count(_: Any) -> None:
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


@dataclass
class Place:
    """Between two rounds: what the next one needs.

    Args:
        index: of the round that comes.
        mask: the weights that it keeps.
        kept: the units that it keeps; None before anything was removed.
        start: the values from which it trains.
    """

    index: int
    mask: Mask
    kept: Mask | None
    start: Values


class RoundsFile:
    """The file in which rounds are kept, so that a killed program goes on with the round that it was in.

    Args:
        folder: where the file is.
        method: whose rounds they are; those of another are refused.
    """

    def __init__(self, folder: Path, method: object) -> None:
        self._folder, self._checkpoint = folder, Checkpoint(folder / "rounds.pt")
        self._settings = fingerprint(identity(method))

    def save(self, place: Place, rewinder: Rewinder) -> None:
        """Keep where the rounds are."""
        kept = None if place.kept is None else dict(place.kept)
        state = {"index": place.index, "mask": dict(place.mask), "kept": kept, "start": dict(place.start.tensors)}
        initial = dict(rewinder.initial.tensors)
        self._checkpoint.save(
            state
            | {"what": place.start.what, "settings": self._settings}
            | {"initial": initial, "rewinding": rewinder.state_dict()}
        )

    def load(self, rewinder: Rewinder) -> Place | None:
        """Where the rounds were, None if there are none; the rewinder gets its values back.

        Raises:
            TombolaError: if they are those of another method or other settings.
        """
        saved = self._checkpoint.load()
        if saved is None:
            return None
        if saved["settings"] != self._settings:
            raise TombolaError(
                f"{self._folder} holds rounds with other settings; give another folder, or those settings"
            )
        rewinder.initial = Values(saved["initial"], "init")
        rewinder.load_state_dict(saved["rewinding"])
        kept = None if saved["kept"] is None else Mask.of(saved["kept"])
        return Place(saved["index"], Mask.of(saved["mask"]), kept, Values(saved["start"], saved["what"]))
