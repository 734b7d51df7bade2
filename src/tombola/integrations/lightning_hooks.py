"""What the callback does in Lightning's hooks; the same for both of its packages, neither of which is imported here."""

from __future__ import annotations

import math
from typing import Any

from tombola.errors import TombolaError
from tombola.integrations.attendant import Attendant, What
from tombola.scores import Inputs
from tombola.tickets import Ticket


class TicketHooks:
    """Searches or keeps a ticket while Lightning trains.

    Early-Bird and WORM draw the ticket when their masks have settled, and training stops there. `Gradual` and `RigL`
    move their mask by the optimizer's steps. A mask, a ticket, or a round of `Iterative.rounds` is attached as it is;
    put a ticket's values into the model yourself (`ticket.put_into`). The state goes into Lightning's checkpoints, so
    that `trainer.fit(…, ckpt_path=…)` goes on with the search.

    Args:
        what: the method, or the mask, ticket or round.
        part: the name of the part of the LightningModule that it is about, as "generator"; empty for all of it.
        stop: whether training stops when the ticket is drawn; otherwise it goes on, dense.
        steps: how many optimizer steps the training takes, for `Gradual` and `RigL`; None asks the trainer.
        example: inputs on which that part can be called, for units that are found by tracing, as channels.
        seed: of what the method draws at random.

    Raises:
        TombolaError: if `what` does not search while a network trains, and is no ticket.
    """

    def __init__(
        self,
        what: What,
        *,
        part: str = "",
        stop: bool = True,
        steps: int | None = None,
        example: Inputs | None = None,
        seed: int = 0,
    ) -> None:
        self._attendant = Attendant(what, part=part, example=example, seed=seed)
        self._part, self._stop, self._steps = part, stop, steps
        self._running = False

    @property
    def ticket(self) -> Ticket:
        """The ticket that was drawn; before that, or where none is, the one of now."""
        return self._attendant.ticket

    @property
    def drawn_at(self) -> int | None:
        """After how many epochs the ticket was drawn; None if it was not."""
        return self._attendant.drawn_at

    @property
    def state_key(self) -> str:
        return f"tombola.TicketCallback({self._part})"

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._running = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step and self._attendant.needs_state:
            raise TombolaError(
                f"this training goes on from step {trainer.global_step} without the state of its TicketCallback; go on "
                "from a checkpoint that was written with it, or train with a new Trainer"
            )
        self._begin(trainer, pl_module)

    def _begin(self, trainer: Any, pl_module: Any) -> None:
        steps = self._steps
        if steps is None and self._attendant.needs_steps:
            estimated = trainer.estimated_stepping_batches
            steps = int(estimated) if 0 < estimated < math.inf else None
        self._running = True
        drawn = self._attendant.begin(pl_module, trainer.optimizers, steps, trainer.current_epoch)
        trainer.should_stop = trainer.should_stop or (drawn and self._stop)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._attendant.epoch_end() and self._stop:
            trainer.should_stop = True

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if not self._running and self._attendant.needs_state:
            raise TombolaError("this Trainer had nothing left to train; make a new Trainer for each training")
        if not self._running:  # it goes on from the end of a training
            self._begin(trainer, pl_module)
        self._attendant.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._attendant.detach()

    def state_dict(self) -> dict[str, Any]:
        return self._attendant.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._attendant.load_state_dict(state_dict)
