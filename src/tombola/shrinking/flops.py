"""Counting floating-point operations as torch counts them, but without asking which module they are of."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


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


def flop_counter() -> FlopCounterMode:
    """A context that counts the operations inside; `get_total_flops()` says how many.

    Examples:
        >>> import torch
        >>> with flop_counter() as counter:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> counter.get_total_flops()
        48
    """
    ready_to_count()
    counter: Any = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    return counter
