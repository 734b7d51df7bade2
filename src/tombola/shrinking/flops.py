"""Counting floating-point operations as torch counts them, but without asking which module they are of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from tombola.tickets.torch_private import (
    CPU_ATTENTION,
    CPU_ATTENTION_BACKWARD,
    CPU_LSTM,
    CPU_LSTM_BACKWARD,
    CUDA_RECURRENT,
    CUDA_RECURRENT_BACKWARD,
)


class _NoModules:
    """Stands in for what notes the module that computes.

    That hooks whatever goes into a module, which fails for gradients of chosen tensors where a parameter goes in, as
    into a parametrization.
    """

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        pass


@cache
def ready_to_count() -> None:
    """Let torch import its compiler now, which the first operation that is counted or traced in a process makes it do.

    That takes seconds, and they are no part of what the operation costs.
    """
    with FlopCounterMode(display=False):
        torch.ones(1) + 1


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return 2 * sdpa_flop_count(query, key, value)  # as of its matrix products one by one


def _recurrent(inputs: Sequence[int], weights: Sequence[Sequence[int]], *_: Any, **__: Any) -> int:
    """Each input vector, or what a layer gave for it, meets each matrix once; arguments are shapes."""
    return 2 * math.prod(inputs[:-1]) * sum(math.prod(own) for own in weights if len(own) == 2)


def _recurrent_backward(*shapes: Any, **_: Any) -> int:
    return 2 * _recurrent(*shapes)


def _lstm(inputs: Sequence[int], of_inputs: Sequence[int], of_states: Sequence[int], *_: Any, **__: Any) -> int:
    return _recurrent(inputs, (of_inputs, of_states))


def _lstm_backward(*shapes: Any, **_: Any) -> int:
    return 2 * _lstm(*shapes)


FUSED = {
    CPU_ATTENTION: _attention,
    CPU_ATTENTION_BACKWARD: _attention_backward,
    CPU_LSTM: _lstm,
    CPU_LSTM_BACKWARD: _lstm_backward,
    CUDA_RECURRENT: _recurrent,
    CUDA_RECURRENT_BACKWARD: _recurrent_backward,
}
"""What operations compute that only a processor or a GPU has, so that a network counts there as on the meta device."""


def flop_counter() -> FlopCounterMode:
    """A context that counts the operations inside; `get_total_flops()` says how many.

    Examples:
        >>> import torch
        >>> with flop_counter() as counter:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> counter.get_total_flops()
        48
        >>> for device in ("cpu", "meta"):
        ...     with flop_counter() as counter:
        ...         _ = torch.nn.functional.scaled_dot_product_attention(*torch.ones(3, 1, 2, 5, 4, device=device))
        ...     print(counter.get_total_flops())
        800
        800
        >>> lstm = torch.nn.LSTM(3, 4)
        >>> for device in ("cpu", "meta"):
        ...     with flop_counter() as counter:
        ...         _ = lstm.to(device)(torch.ones(5, 2, 3, device=device))
        ...     print(counter.get_total_flops())
        2240
        2240
    """
    ready_to_count()
    counter: Any = FlopCounterMode(display=False, custom_mapping=FUSED)
    counter.mod_tracker = _NoModules()
    return counter
