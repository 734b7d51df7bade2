"""Whether dead weights and their optimizer state need to be zeroed after a step, or are zero already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn, optim

from tombola.tickets.kept_words import KeptWords
from tombola.tickets.torch_private import writes_to

KEEP_ZERO = (
    optim.SGD,
    optim.Adam,
    optim.AdamW,
    optim.NAdam,
    optim.RAdam,
    optim.RMSprop,
    optim.Adagrad,
    optim.Adadelta,
)
"""Optimizers whose step leaves a weight of zero, with a gradient and state of zero, where it is, and its state too."""
EVERY = 64
"""Steps from one look at all dead weights to the next."""


class StepGuard:
    """Says after each step of an optimizer whether something may have moved dead weights.

    An optimizer that keeps zeros needs no second pass over weights and state, since their gradients are zero already.
    That holds as long as nobody else writes to weights, gradients and state. torch counts what is written in place, and
    so shows it; what goes by way of `tensor.data` is found by a look at all dead weights now and then.

    Args:
        optimizer: what steps.
    """

    def __init__(self, optimizer: Any) -> None:
        self._writes: dict[nn.Parameter, int] = {}
        self._words_of: Mapping[nn.Parameter, KeptWords] = {}
        self._count = 0
        self._is_touched = True
        self.removers = [
            optimizer.register_step_pre_hook(self._before).remove,
            optimizer.register_load_state_dict_post_hook(self._loaded).remove,
        ]

    @staticmethod
    def serves(optimizer: Any, parameters: Iterable[nn.Parameter]) -> bool:
        """Whether an optimizer keeps zeros, of parameters that lie in this process whole."""
        parameters = list(parameters)
        if type(optimizer) not in KEEP_ZERO or any(type(own) is not nn.Parameter for own in parameters):
            return False
        least = max((torch.finfo(own.dtype).tiny for own in parameters if own.is_floating_point()), default=0.0)
        # Maximizing makes −0.0 of 0.0, and 0 / (0 + eps) is no number where eps is too small for the type.
        return not any(group.get("maximize") or group.get("eps", 1.0) < least for group in optimizer.param_groups)

    def verdict(self) -> Literal["untouched", "touched", "look"]:
        """Of the step that was just made: `look` is for a check of what should be untouched."""
        self._count += 1
        if self._is_touched:
            return "touched"
        return "look" if self._count % EVERY == 0 else "untouched"

    def settled(self, words_of: Mapping[nn.Parameter, KeptWords], held: Iterable[nn.Parameter]) -> None:
        """Take it that all dead weights are zero now, and held parameters where they belong."""
        self._is_touched, self._words_of = False, words_of
        self._writes = {parameter: writes_to(parameter) for parameter in (*words_of, *held)}

    def stepped(self) -> None:
        """Take it that the optimizer alone has written to parameters in its step."""
        for parameter in self._writes:
            self._writes[parameter] = writes_to(parameter)

    def _before(self, *_: object) -> None:
        if self._is_touched:
            return
        for parameter, writes in self._writes.items():
            gradient, words = parameter.grad, self._words_of.get(parameter)
            is_clean = gradient is None or (words is not None and words.cleaned(gradient))
            if writes_to(parameter) != writes or not is_clean:
                self._is_touched = True
                return

    def _loaded(self, *_: object) -> None:
        self._is_touched = True
