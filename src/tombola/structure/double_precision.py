"""Computes all of a network in double precision, also where its code asks for another one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LOWER = (torch.float32, torch.float16, torch.bfloat16)
CASTS = dict.fromkeys((Tensor.float, Tensor.half, Tensor.bfloat16), Tensor.double)


class AllInDouble(TorchFunctionMode):
    """Inside, what asks for a lower precision gets double precision.

    Norms of transformers compute in float32 whatever they are given. Two networks that are the same function would
    differ there by how float32 rounds, and any other difference of that size would be hidden.

    Examples:
        >>> with AllInDouble():
        ...     torch.ones(1).to(torch.float32).dtype
        torch.float64
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {name: _raised(value) for name, value in (kwargs or {}).items()}
        return CASTS.get(func, func)(*map(_raised, args), **given)


def _raised(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in LOWER else value
