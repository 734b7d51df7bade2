"""A mask as machine words, which write zeros into tensors, many at once on a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.tickets.sharding import layout_of, own_part, part_like
from tombola.tickets.torch_private import multiply_, writes_to

PLAIN = (Tensor, nn.Parameter)
WORD_TYPES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class KeptWords:
    """One parameter's mask as machine words, which assign +0.0 to what is dead, NaN and −0.0 included; see `zero`.

    An instance is also the hook that does so to its parameter's gradient.

    Args:
        kept: True = kept, of the parameter's shape.
    """

    def __init__(self, kept: Tensor) -> None:
        self._cleaned: tuple[weakref.ref[Tensor], int] | None = None
        self.keep(kept)
        self.dense_gradients = False
        self._frozen: Tensor | None = None
        self._loaded = True

    def keep(self, kept: Tensor) -> None:
        """Follow this mask from here on: True = kept."""
        self.kept = kept
        self._cleaned = None
        self._words: dict[tuple[Any, ...], Tensor] = {}

    def freeze(self, parameter: Tensor) -> None:
        """Let the parameter's dead positions have their present values from here on, and not 0."""
        self._frozen, self._loaded = self._dead_in(parameter), False

    def thaw(self, parameter: Tensor) -> None:
        """Write to the parameter's dead positions, which are 0.0, what was frozen there, bit for bit."""
        if (frozen := self._frozen_like(parameter)) is not None:
            _as_words(parameter).bitwise_or_(frozen)

    def zero_dead(self, tensor: Tensor) -> None:
        """Write 0.0 to each dead position of a tensor of the parameter's shape."""
        zero([self.in_words(tensor)])

    def lives(self, parameter: Tensor) -> bool:
        """Whether a dead position of the parameter is not 0; False on the meta device, where nothing has a value."""
        return not parameter.is_meta and bool(self._dead_in(parameter).any())

    def in_words(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """The memory of a tensor of the parameter's shape, and the mask, both as words."""
        if type(tensor) in PLAIN and not tensor.is_complex():  # the usual case, each step
            part, key = tensor.detach(), (tensor.dtype, tensor.device, tensor.stride())
        else:
            part = _as_real(tensor)
            key = (*_layout(part), layout_of(tensor))
        words = self._words.get(key)
        if words is None:  # of the tensor's own layout, so that what is done runs over contiguous memory
            kept = part_like(self.kept, tensor)
            words = torch.empty_like(part, dtype=WORD_TYPES[part.element_size()], requires_grad=False)
            self._words[key] = words.copy_(kept.unsqueeze(-1) if tensor.is_complex() else kept)
            if part.is_cpu:
                words.neg_()  # −1 is the word whose bits are all 1
        return part.view(words.dtype), words

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
            self._cleaned = weakref.ref(gradient), writes_to(gradient)

    def cleaned(self, gradient: Tensor) -> bool:
        """Whether dead gradients are zero: nobody has written to this gradient since its hook ran."""
        if self._cleaned is None or self.dense_gradients:
            return False
        last, writes = self._cleaned
        return last() is gradient and writes_to(gradient) == writes

    def _frozen_like(self, parameter: Tensor) -> Tensor | None:
        """The frozen values as machine words, 0 where a position is kept, in the parameter's layout of now."""
        if self._frozen is None:
            return None
        part = own_part(parameter)
        if _layout(self._frozen) != _layout(part):
            self._frozen = torch.empty_like(part, requires_grad=False).copy_(self._frozen)
        return _as_words(self._frozen)

    def _check_loaded(self, parameter: Tensor) -> None:
        """Refuse, in the first backward pass, to train on other weights than those that were frozen."""
        frozen = self._frozen_like(parameter)
        if frozen is not None and not torch.equal(_as_words(self._dead_in(parameter)), frozen):
            raise TombolaError(
                "weights that stay frozen were changed after the mask was attached, as by load_state_dict; attach the "
                "mask after that"
            )
        self._loaded = True

    def _dead_in(self, parameter: Tensor) -> Tensor:
        """A copy of this process's part of the parameter, 0 where a position is kept."""
        return own_part(parameter).masked_fill(part_like(self.kept, parameter).to(parameter.device), 0)


def zero(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Write 0.0 where masks are dead: on the CPU by a bitwise AND, elsewhere by a product of whole numbers.

    Both assign, and keep what is kept bit for bit. A GPU takes longer to start such a piece of work than to do it, and
    of products torch starts one for many tensors.

    Args:
        pairs: what `in_words` gave.
    """
    elsewhere: dict[tuple[torch.dtype, torch.device], list[tuple[Tensor, Tensor]]] = {}
    for values, words in pairs:
        if values.is_cpu:
            values.bitwise_and_(words)
        else:
            elsewhere.setdefault((values.dtype, values.device), []).append((values, words))
    for alike in elsewhere.values():
        multiply_(*zip(*alike, strict=True))


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.device, tensor.stride()


def _as_real(tensor: Tensor) -> Tensor:
    """The memory of a tensor's part in this process, with complex numbers as pairs of real ones."""
    tensor = own_part(tensor)
    if not tensor.is_complex():
        return tensor
    return torch.view_as_real(tensor.conj() if tensor.is_conj() else tensor)


def _as_words(tensor: Tensor) -> Tensor:
    """The tensor's own memory as machine words."""
    real = _as_real(tensor)
    return real.view(WORD_TYPES[real.element_size()])
