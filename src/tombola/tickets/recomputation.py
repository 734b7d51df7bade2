"""Computing parts of a forward pass again in backward, as activation checkpointing does, with the same tensors.

Recomputation reads a module's tensors while gradients are taken, long after `torch.func.functional_call` has put the
module's own back. What stands in for them therefore stays in its place until the gradients are there.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.tickets.torch_private import own_buffers, own_parameters, version_of, without_reentrance


class HeldTensors:
    """All parameters and buffers of a module and its parts, as they are now, where the parts hold them.

    Args:
        module: the module.
    """

    def __init__(self, module: nn.Module) -> None:
        parts = list(module.modules())
        self._recurrent = [part for part in parts if isinstance(part, nn.RNNBase)]
        stores: Iterable[Any] = (store for part in parts for store in (own_parameters(part), own_buffers(part)))
        self._stores: list[tuple[Any, dict[str, Any]]] = [(store, dict(store.items())) for store in stores]

    def swap(self, values: Mapping[int, Tensor]) -> None:
        """Put other tensors in the place of some, and the module's own in the place of all others.

        Args:
            values: by the `id` of the module's own tensor, so that a tied one is replaced everywhere.
        """
        for store, own in self._stores:
            for key, tensor in own.items():
                store[key] = values.get(id(tensor), tensor)
            if len(store) != len(own):  # a forward pass has added some
                for key in [key for key, _ in store.items() if key not in own]:
                    del store[key]

    def restore(self) -> None:
        """Put all of the module's own tensors back."""
        self.swap({})
        for part in self._recurrent:  # it lists its weights too, and the list follows an assignment
            for key, tensor in own_parameters(part).items():
                if isinstance(tensor, nn.Parameter):
                    setattr(part, key, tensor)


_open: ContextVar[ExitStack | None] = ContextVar("_open", default=None)


@contextmanager
def recomputable() -> Generator[ExitStack]:
    """Inside, what backward computes again meets the tensors of its forward pass.

    What `called_with` puts in stays until the stack that is given is closed, at the latest at the end. Reentrant
    checkpoints compute as the others do: they would lose the gradients of all that begins with an input without one,
    and allow neither a gradient of chosen tensors nor a second derivative.
    """
    with without_reentrance(), ExitStack() as swapped:
        token = _open.set(swapped)
        try:
            yield swapped
        finally:
            _open.reset(token)


def called_with(module: nn.Module, values: Mapping[str, Tensor], inputs: Any) -> Any:
    """Call a module with other tensors in the place of some of its parameters.

    Args:
        module: the module; it stays as it is.
        values: by the path of the parameter.
        inputs: the module's only argument.

    Returns:
        The module's outputs. Gradients can be taken of them inside the `recomputable` in which they were computed,
        until the next call; without activation checkpointing anywhere.
    """
    if torch.compiler.is_compiling():  # a compiled graph holds on to what it computes again with
        return functional_call(module, dict(values), (inputs,))
    outer = _open.get()
    if outer is not None:
        outer.close()
    tensors = HeldTensors(module)
    with ExitStack() as swapped:
        swapped.callback(tensors.restore)
        tensors.swap({id(module.get_parameter(path)): value for path, value in values.items()})
        outputs = module(inputs)
        if outer is not None and torch.is_grad_enabled():
            outer.push(swapped.pop_all())
    return outputs


def gradients_taken() -> None:
    """Put back what `called_with` left in a module's place for the gradients of its outputs."""
    if (swapped := _open.get()) is not None:
        swapped.close()


class Recomputation:
    """The steps of a training, in whose backward passes parts of the forward pass may be computed again.

    Such a part begins with the buffers that the forward pass began with, and does not move them a second time.

    Args:
        model: the network that trains.
    """

    def __init__(self, model: nn.Module) -> None:
        self._stores = [store for part in model.modules() if (store := own_buffers(part))]
        self._first: list[dict[str, Tensor | None]] = []
        self._moves = bool(self._stores)  # until a backward pass has moved none

    def begin(self) -> None:
        """Before a forward pass."""
        if self._moves:
            self._first = [{key: _copied(buffer) for key, buffer in store.items()} for store in self._stores]

    def backward(self, value: Tensor) -> None:
        """Take the gradients of a value that was computed since `begin`."""
        if self._moves:
            self._backward_from_first_buffers(value)
        else:
            value.backward()
        gradients_taken()

    def _backward_from_first_buffers(self, value: Tensor) -> None:
        now = [dict(store) for store in self._stores]
        for store, first in zip(self._stores, self._first, strict=True):
            store.update(first)
        noted = [(store, key, buffer, version_of(buffer)) for store in self._stores for key, buffer in store.items()]
        try:
            value.backward()
        finally:
            self._moves = any(store[key] is not at or version_of(at) != version for store, key, at, version in noted)
            for store, own in zip(self._stores, now, strict=True):
                store.clear()
                store.update(own)


def _copied(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else buffer.clone()
