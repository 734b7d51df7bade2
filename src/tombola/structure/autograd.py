"""What torch's autograd records of an operation. Of its saved fields and shapes, this file alone knows.

Public are an operation's `name()` and `next_functions`; private are the shapes of what it gave (`_input_metadata`, so
called because they are the backward function's inputs) and what it saved of its arguments (`_saved_dim` of what joins,
splits, slices and reduces, `_saved_pad` of padding). Both are as here from torch 2.6 to 2.13, the versions that are
tested; torch renames them without notice, hence the bound at the next minor version in pyproject.toml.
"""

from __future__ import annotations

import re
from typing import Any

from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from tombola.doors import Door

DOOR = Door("torch", ">=2.6,<2.14", "structure/autograd.py")


def stem_of(function: Node) -> str:
    """An operation by its name without what says how many dimensions it is for, as MaxPool."""
    return re.sub(r"\d+[dD].*$", "", re.sub(r"Backward\d*$", "", function.name()))


def shape_of(function: Node, place: int = 0) -> tuple[int, ...]:
    """The shape of what an operation gives; place: which of several tensors."""
    return tuple(DOOR.part(function, "_input_metadata")[place].shape)


def operands(function: Node) -> list[tuple[int, ...]]:
    """The shapes of what an operation takes, numbers and what needs no gradient left out."""
    return [shape_of(own, at) for own, at in function.next_functions if own is not None] or [()]


def has_leaf(function: Node) -> bool:
    """Whether an operand is not computed: an input of the network, a parameter, or a number."""
    return any(own is None or "AccumulateGrad" in own.name() for own, _ in function.next_functions)


def dim_of(function: Node) -> int | None:
    """The dimension along which tensors are joined, split or sliced; None for an operation that torch does not have."""
    return None if isinstance(function, BackwardCFunction) else _signed(_saved(function, "dim"))


def reduced(function: Node) -> tuple[int, ...]:
    """The dimensions that a mean, sum or maximum goes over; (0,), as good as any, where it goes over all."""
    return tuple(map(_signed, getattr(function, "_saved_dim", (0,))))


def padding(function: Node) -> tuple[int, ...] | None:
    """What is padded, two numbers a dimension, the last one first; None for an operation that torch does not have."""
    return None if isinstance(function, BackwardCFunction) else tuple(_saved(function, "pad"))


def _saved(function: Node, field: str) -> Any:
    return DOOR.part(function, f"_saved_{field}")


def _signed(dim: int) -> int:
    """A dimension as autograd saves it, where what counts from the end has wrapped round."""
    return dim if dim < 2**63 else dim - 2**64
