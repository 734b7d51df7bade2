"""Counting floating-point operations as torch counts them, but without asking which module they are of."""

from __future__ import annotations

from typing import Any

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


def flop_counter() -> FlopCounterMode:
    """A context that counts the operations inside; `get_total_flops()` says how many.

    Examples:
        >>> import torch
        >>> with flop_counter() as counter:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> counter.get_total_flops()
        48
    """
    counter: Any = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    return counter
