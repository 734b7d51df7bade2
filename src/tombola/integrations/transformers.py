"""A callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import nn

from tombola.errors import TombolaError
from tombola.integrations.attendant import Attendant, What
from tombola.scores import Inputs
from tombola.tickets import Ticket, Values, put_values
from tombola.training.checkpoint import Checkpoint

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError("transformers is not installed; pip install 'tombola[transformers]'") from error


class TicketCallback(TrainerCallback):
    """Searches or keeps a ticket while a Hugging Face Trainer trains.

    Early-Bird and WORM draw the ticket when their masks have settled, and training stops there. `Gradual` and `RigL`
    move their mask by the optimizer's steps. A mask, a ticket, or a round of `Iterative.rounds` is attached as it is;
    put a ticket's values into the model yourself (`ticket.put_into`). The state goes into each checkpoint's folder, so
    that `trainer.train(resume_from_checkpoint=…)` goes on with the search.

    Args:
        what: the method, or the mask, ticket or round.
        part: the name of the part of the model that it is about, as "bert.encoder"; empty for all of it.
        stop: whether training stops when the ticket is drawn; otherwise it goes on, dense.
        example: inputs on which that part can be called, for units that are found by tracing, as channels.
        seed: of what the method draws at random.
        resume_from: the checkpoint's folder, where it is not in the `output_dir` of the Trainer that goes on.

    Raises:
        TombolaError: if `what` does not search while a network trains, and is no ticket.
    """

    def __init__(
        self,
        what: What,
        *,
        part: str = "",
        stop: bool = True,
        example: Inputs | None = None,
        seed: int = 0,
        resume_from: str | Path | None = None,
    ) -> None:
        self._attendant = Attendant(what, part=part, example=example, seed=seed)
        self._file = f"tombola-{part}.pt" if part else "tombola.pt"
        self._stop, self._resume_from = stop, resume_from
        self._over = False

    @property
    def ticket(self) -> Ticket:
        """The ticket that was drawn; before that, or where none is, the one of now."""
        return self._attendant.ticket

    @property
    def drawn_at(self) -> int | None:
        """After how many epochs the ticket was drawn; None if it was not."""
        return self._attendant.drawn_at

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        if args.load_best_model_at_end and self._attendant.needs_steps:
            raise TombolaError(
                "load_best_model_at_end would bring back weights of before the mask was final; leave it out"
            )
        if state.global_step:
            self._load(args, state)
        drawn = self._attendant.begin(model, optimizer, state.max_steps, math.floor(state.epoch or 0))
        self._over = drawn and self._stop
        control.should_training_stop = control.should_training_stop or self._over

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._over and self._attendant.epoch_end() and self._stop:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = self._folder(args, state)
        if args.should_save and not folder.is_dir():
            raise TombolaError(f"the Trainer keeps its checkpoints elsewhere than in {folder}; train without a search")
        if args.should_save:
            self._checkpoint(folder).save(self._attendant.state_dict() | {"step": state.global_step})

    def on_train_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
        drawn = self._attendant.drawn
        if self._over and drawn is not None and isinstance(drawn.start, Values) and model is not None:
            # The Trainer takes a step before it looks whether training is over, as it was when the ticket was drawn.
            put_values(self._attendant.inside(model), drawn.start.tensors)
        self._attendant.end()

    def _load(self, args: Any, state: Any) -> None:
        places = [
            Path(place) for place in (self._resume_from, args.resume_from_checkpoint) if isinstance(place, str | Path)
        ]
        for folder in (*places, self._folder(args, state)):
            saved = self._checkpoint(folder).load() if folder.is_dir() else None
            if saved is not None and saved.get("step") == state.global_step:
                self._attendant.load_state_dict(saved)
                return
        if self._attendant.needs_state:
            raise TombolaError(
                f"training goes on from step {state.global_step}, whose checkpoint has no {self._file} in "
                f"{self._folder(args, state)}; say where it is by TicketCallback(…, resume_from=…), or go on from an "
                "earlier checkpoint"
            )

    def _checkpoint(self, folder: Path) -> Checkpoint:
        return Checkpoint(folder / self._file)

    def _folder(self, args: Any, state: Any) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}"
