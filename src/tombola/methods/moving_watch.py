"""A mask that moves in a user's own loop: the same changes as in Tombola's, made by hooks of the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.methods.moving_mask import MovingMask, last_move
from tombola.methods.own_loop import before_each_step, concerned, steps_of
from tombola.methods.rewinding import End
from tombola.tickets import (
    Mask,
    Optimizers,
    Ticket,
    Values,
    after_each_step,
    attach,
    own_part,
    parameters_of,
    part_like,
    tensors_of,
)
from tombola.training import Recipe, State, fingerprint, identity

WHOLE = Recipe(epochs=1)
"""A training in one's own loop, as a method's observer sees it: one epoch, of all its steps."""
PARTS = {"settings", "steps", "step", "epochs", "moving", "initial"}


class Moving(Protocol):
    """The settings of a method that moves its mask."""

    @property
    def until(self) -> float: ...

    @property
    def rewind(self) -> End: ...


class MovingWatch:
    """A search in a user's own loop, made by `Gradual.watch` or `RigL.watch`.

    The mask is attached to the model, and moves by the steps of the optimizer. Of several, which step one after the
    other, the mask grows before the first of them and shrinks after the last. `handle` is that of `attach`; `detach()`
    removes all hooks.
    """

    def __init__(self, method: Moving, moving: MovingMask, model: nn.Module, optimizer: Optimizers, steps: int) -> None:
        if type(steps) is not int or steps < 1:
            raise TombolaError(f"steps is {steps!r}; give how many optimizer steps the training will take, at least 1")
        parameters = parameters_of(model)
        optimizers = concerned(optimizer, [parameters[name] for name in moving.mask])
        self._stepping = steps_of(optimizers)
        self._initial = Values(tensors_of(model), "init") if method.rewind == "init" else None
        self._settings, self._moving, self._steps = fingerprint(identity(method)), moving, steps
        self._end, self._epochs, self._asked_at = last_move(method.until, WHOLE, steps), 0, -1
        self._before = BeforeAttaching(moving.mask, parameters, self._stepping)
        self._dense = ExitStack()
        self.handle = attach(moving.mask, model, optimizers)
        self._state = State(model, self._stepping[0], WHOLE, steps, 0, 0, self.handle)
        moving.epoch_begin(self._state)
        self.handle.also(before_each_step(self._stepping[0], self._before_step))
        self.handle.also(after_each_step(self._stepping[-1], self._after_step))
        self.handle.also(self._dense.close)

    def _before_step(self, scale: Tensor | float) -> None:
        if self._asked_at == self._state.step:  # a second closure of the same step
            return
        self._asked_at = self._state.step
        overflowed = getattr(self._state.optimizer, "found_inf", None)  # fused optimizers skip the step themselves
        if overflowed is not None and self._moving.wants_dense_gradients(self._state) and overflowed.any():
            return
        mask = self._moving.mask
        self._moving.before_step(self._state)
        if mask != self._moving.mask:  # which takes the place of the other optimizers' steps too
            for optimizer in self._stepping:
                optimizer.zero_grad()

    def _after_step(self, _: Any) -> None:
        self._before.forget()
        self._state.step += 1
        self._moving.after_step(self._state)
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Let the coming backward passes keep the gradients of dead weights, if the mask moves with them."""
        self._dense.close()
        if self._moving.wants_dense_gradients(self._state):
            self._dense.enter_context(self.handle.dense_gradients())

    def epoch_end(self) -> bool:
        """Count an epoch; False, always: a moving mask lets training go on."""
        self._epochs += 1
        return False

    @property
    def finished(self) -> bool:
        """Whether the mask has moved for the last time."""
        return self._state.step >= self._end

    @property
    def ticket(self) -> Ticket:
        """The mask of now, on the weights of now or on the initialisation, as the method's `rewind` says."""
        now = self._initial or Values(tensors_of(self._state.model), f"{self._state.step}it", self._epochs)
        return Ticket(self._moving.mask, now, removed=self._moving.removed)

    def detach(self) -> None:
        """Remove the hooks; the weights stay as they are."""
        self.handle.detach()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs, beside model and optimizer, to go on with the search."""
        return {
            "settings": self._settings,
            "steps": self._steps,
            "step": self._state.step,
            "epochs": self._epochs,
            "moving": self._moving.state_dict(),
            "initial": None if self._initial is None else dict(self._initial.tensors),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict()` gave, before the first step.

        Model and optimizer may be loaded before or after.

        Raises:
            TombolaError: if it is the state of something else.
        """
        if not isinstance(state, Mapping) or state.keys() != PARTS:
            raise TombolaError("this is not the state of such a watch; give what watch.state_dict() gave")
        if state["settings"] != self._settings:
            raise TombolaError("this is the state of a search with other settings; go on with those it began with")
        if state["steps"] != self._steps:
            raise TombolaError(
                f"the search began with steps={state['steps']}, and its schedule follows from that; give that again, "
                f"and not {self._steps}"
            )
        if {name: tuple(kept.shape) for name, kept in state["moving"]["mask"].items()} != self.handle.mask.shapes:
            raise TombolaError("the stored mask is of another network; go on with the network of the checkpoint")
        self._before.put_back(self.handle.mask)
        self._moving.load_state_dict(state["moving"])
        self.handle.exchange(self._moving.mask)
        self._state.step, self._epochs, self._asked_at = state["step"], state["epochs"], -1
        if state["initial"] is not None:
            self._initial = Values(state["initial"], "init")
        self._look_ahead()


class BeforeAttaching:
    """What the first mask zeroed, kept until the first step.

    A checkpoint's weights may be in the model before the watch is made, and its own mask comes after: what the first
    mask zeroed of them is put back then. It is not where others were loaded meanwhile.
    """

    def __init__(self, mask: Mask, parameters: Mapping[str, nn.Parameter], optimizers: Iterable[Optimizer]) -> None:
        zeroed = {name: parameters[name] for name in mask if mask.kept(name) < mask.bits[name].size}
        self._weights = {name: (weight, own_part(weight).clone()) for name, weight in zeroed.items()}
        self._moments = [
            (optimizer, weight, moment, own_part(moment).clone())
            for optimizer in optimizers
            for weight in zeroed.values()
            for moment in optimizer.state.get(weight, {}).values()
            if isinstance(moment, Tensor) and moment.shape == weight.shape
        ]

    def forget(self) -> None:
        self._weights, self._moments = {}, []

    @torch.no_grad()
    def put_back(self, mask: Mask) -> None:
        """Undo what attaching this mask zeroed, and nothing that was written since."""
        for name, (weight, before) in self._weights.items():
            own, kept = own_part(weight), part_like(mask[name], weight).to(weight.device)
            if torch.equal(own, torch.where(kept, before, 0.0)):
                own.copy_(before)
        for optimizer, weight, moment, before in self._moments:
            if any(moment is now for now in optimizer.state.get(weight, {}).values()):
                own_part(moment).copy_(before)
        self.forget()
