"""A parameter's mask as machine words, which assign at the speed of arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tombola.errors import TombolaError

WORD_TYPES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class KeptWords:
    """One parameter's mask as machine words: all bits 1 where a position is kept, all 0 where it is dead.

    A bitwise AND with them assigns +0.0 to what is dead, NaN and −0.0 included, at the speed of a multiplication. An
    instance is also the hook that does so to its parameter's gradient.

    Args:
        kept: True = kept, of the parameter's shape.
    """

    def __init__(self, kept: Tensor) -> None:
        self.keep(kept)
        self.dense_gradients = False
        self._frozen: Tensor | None = None
        self._loaded = True

    def keep(self, kept: Tensor) -> None:
        """Follow this mask from here on: True = kept."""
        self.kept = kept
        self._words: dict[tuple[Any, ...], Tensor] = {}

    def freeze(self, parameter: Tensor) -> None:
        """Let the parameter's dead positions have their present values from here on, and not 0."""
        self._frozen, self._loaded = parameter.detach().masked_fill(self.kept.to(parameter.device), 0), False

    def settle(self, parameter: Tensor) -> None:
        """Write to the parameter's dead positions what belongs there: 0.0, or what was frozen, bit for bit."""
        self.zero_dead(parameter)
        if (frozen := self._frozen_like(parameter)) is not None:
            _as_words(parameter).bitwise_or_(frozen)

    def zero_dead(self, tensor: Tensor) -> None:
        """Write 0.0 to each dead position of a tensor of the parameter's shape."""
        kept = self.kept.unsqueeze(-1) if tensor.is_complex() else self.kept
        tensor = _as_real(tensor)
        key = _layout(tensor)
        words = self._words.get(key)
        if words is None:  # of the tensor's own layout, so that the AND runs over contiguous memory
            words = torch.empty_like(tensor, dtype=WORD_TYPES[tensor.element_size()], requires_grad=False)
            self._words[key] = words.copy_(kept).neg_()  # −1 is the word whose bits are all 1
        tensor.view(words.dtype).bitwise_and_(words)

    def __call__(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        if gradient.layout != torch.strided:
            raise TombolaError("a masked parameter got a sparse gradient; make its layer with sparse=False")
        if not self._loaded:
            self._check_loaded(parameter)
        if not self.dense_gradients:
            self.zero_dead(gradient)

    def _frozen_like(self, parameter: Tensor) -> Tensor | None:
        """The frozen values as machine words, 0 where a position is kept, in the parameter's layout of now."""
        if self._frozen is None:
            return None
        if _layout(self._frozen) != _layout(parameter):
            self._frozen = torch.empty_like(parameter, requires_grad=False).copy_(self._frozen)
        return _as_words(self._frozen)

    def _check_loaded(self, parameter: Tensor) -> None:
        """Refuse, in the first backward pass, to train on other weights than those that were frozen."""
        frozen = self._frozen_like(parameter)
        present = parameter.detach().masked_fill(self.kept.to(parameter.device), 0)
        if frozen is not None and not torch.equal(_as_words(present), frozen):
            raise TombolaError(
                "weights that stay frozen were changed after the mask was attached, as by load_state_dict; attach the "
                "mask after that"
            )
        self._loaded = True


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.device, tensor.stride()


def _as_real(tensor: Tensor) -> Tensor:
    """The tensor's own memory, with complex numbers as pairs of real ones."""
    tensor = tensor.detach()
    if not tensor.is_complex():
        return tensor
    return torch.view_as_real(tensor.conj() if tensor.is_conj() else tensor)


def _as_words(tensor: Tensor) -> Tensor:
    """The tensor's own memory as machine words."""
    real = _as_real(tensor)
    return real.view(WORD_TYPES[real.element_size()])
