"""Random sparse network transformation in a user's own loop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.methods.growing_penalty import Extrusion, GrowingPenalty
from tombola.methods.own_loop import before_each_step, concerned, steps_of
from tombola.tickets import (
    Mask,
    Optimizers,
    Ticket,
    Values,
    after_each_step,
    attach,
    parameters_of,
    tensors_of,
)
from tombola.training import Step, fingerprint, identity

PARTS = {"settings", "steps", "step", "epochs", "masks", "values"}


class Choice(Protocol):
    """Gives the mask of each cycle."""

    levels: list[float]
    kept: list[Mask]

    @property
    def mask(self) -> Mask:
        """The mask of the cycle of now."""
        ...

    @property
    def before(self) -> Mask:
        """The mask of the cycle before."""
        ...

    @property
    def removed(self) -> dict[str, tuple[int, ...]]: ...

    def next(self) -> Mask: ...


class RstWatch:
    """A transformation in a user's own loop, made by `RST.watch`; `detach()` removes all hooks.

    It goes from cycle to cycle by itself, by the steps of the optimizer. After its end the penalty stays as it is.
    """

    def __init__(
        self,
        method: GrowingPenalty,
        choice: Choice,
        model: nn.Module,
        optimizer: Optimizers,
        steps: int,
        dtype: torch.dtype,
        delete: bool = False,
    ) -> None:
        if type(steps) is not int or steps < 1:
            raise TombolaError(f"steps is {steps!r}; give how many optimizer steps the training will take, at least 1")
        for name in ("ramp", "hold", "every"):
            value = getattr(method, name)
            if isinstance(value, str) and Step.parse(value).unit == "ep":
                raise TombolaError(
                    f"{name} is {value}, and in your own loop steps are counted, not epochs; write it as '100it'"
                )
        self._settings, self._choice, self._model = fingerprint(identity(method)), choice, model
        self._ramp, self._steps = method.ramp_in(1, steps, dtype), steps
        self._extrusion = Extrusion(choice.next(), model, self._ramp)
        parameters = parameters_of(model)
        self._optimizers = concerned(optimizer, [parameters[name] for name in self._extrusion.mask])
        self._stepping = steps_of(self._optimizers)
        self._step, self._epochs = 0, 0
        everything = Mask.full({name: parameters[name] for name in self._extrusion.mask})
        self._handle = attach(everything, model, self._optimizers) if delete else None
        self._removers = [before_each_step(own, partial(self._press, of=own)) for own in self._stepping]
        self._removers.append(after_each_step(self._stepping[-1], self._after_step))

    def _press(self, scale: Tensor | float, of: Optimizer) -> None:
        self._extrusion.press(self._step, scale, of)

    def _after_step(self, _: Any) -> None:
        if self.finished:
            return
        self._step += 1
        if self._step < self._ramp.steps:
            return
        if self._handle is not None:
            self._handle.exchange(self._extrusion.mask)
        if len(self._choice.kept) == len(self._choice.levels):
            self._extrusion.values = {name: tensor.clone() for name, tensor in tensors_of(self._model).items()}
            return
        self._extrusion, self._step = Extrusion(self._choice.next(), self._model, self._ramp), 0
        for optimizer in self._stepping:
            optimizer.state.clear()

    def epoch_end(self) -> bool:
        """Count an epoch; True once the transformation has come to its end."""
        self._epochs += 1
        return self.finished

    @property
    def finished(self) -> bool:
        """Whether the transformation has come to its end."""
        return bool(self._extrusion.values)

    @property
    def cycle(self) -> int:
        """Which cycle it is in, counted from 0."""
        return len(self._choice.kept) - 1

    @property
    def penalty(self) -> float:
        """λ of the coming step."""
        return self._ramp.at(self._step)

    @property
    def removed_norm(self) -> float:
        """The share of the squared norm of the masked parameters that lies in what the mask drops."""
        return self._extrusion.removed_norm

    @property
    def ticket(self) -> Ticket:
        """The mask of now, on the weights at the end of the transformation, or before it on those of now."""
        what = "transformed" if self.finished else f"{self._step}it"
        values = self._extrusion.values or tensors_of(self._model)
        return Ticket(self._extrusion.mask, Values(values, what, self._epochs), removed=self._choice.removed)

    def detach(self) -> None:
        """Remove the hooks; the weights stay as they are."""
        while self._removers:
            self._removers.pop()()
        if self._handle is not None:
            self._handle.detach()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs, beside model and optimizer, to go on."""
        return {
            "settings": self._settings,
            "steps": self._steps,
            "step": self._step,
            "epochs": self._epochs,
            "masks": [dict(kept) for kept in self._choice.kept],
            "values": self._extrusion.values,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict()` gave; model and optimizer may be loaded before or after.

        Raises:
            TombolaError: if it is the state of something else.
        """
        if not isinstance(state, Mapping) or state.keys() != PARTS:
            raise TombolaError("this is not the state of such a watch; give what watch.state_dict() gave")
        if state["settings"] != self._settings or state["steps"] != self._steps:
            raise TombolaError("this is the state of a search with other settings; go on with those it began with")
        kept = [Mask.of(mask) for mask in state["masks"]]
        if any(own.shapes != self._choice.kept[0].shapes for own in kept):
            raise TombolaError("the stored masks are of another network; go on with the network of the checkpoint")
        self._choice.kept[:] = kept
        self._extrusion = Extrusion(self._choice.mask, self._model, self._ramp)
        self._extrusion.values = dict(state["values"])
        self._step, self._epochs = state["step"], state["epochs"]
        if self._handle is not None and (len(kept) > 1 or self.finished):
            self._handle.exchange(self._choice.mask if self.finished else self._choice.before)
