"""What torch's autograd records of an operation. No other file uses the private parts of these records.

An operation's `name()` and `next_functions` are public. Private are the shapes of its results (`_input_metadata`, since
they are the inputs of the backward function) and the arguments that it saved (`_saved_dim` of concatenation, split,
slice and reduction, `_saved_pad` of padding). They are the same in torch 2.6 to 2.13, the versions that are tested.
torch may rename them without notice, so pyproject.toml bounds torch at the next minor version.
"""

from __future__ import annotations

import re
from typing import Any

from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from tombola.doors import Door

DOOR = Door("torch", ">=2.6,<2.14", "structure/autograd.py")


def stem_of(function: Node) -> str:
    """An operation's name without `Backward` and dimensions: MaxPool for MaxPool2DWithIndicesBackward0."""
    return re.sub(r"\d+[dD].*$", "", re.sub(r"Backward\d*$", "", function.name()))


def shape_of(function: Node, place: int = 0) -> tuple[int, ...]:
    """The shape of an operation's result.

    Args:
        function: the operation.
        place: which one of several results.
    """
    return tuple(DOOR.part(function, "_input_metadata")[place].shape)


def operands(function: Node) -> list[tuple[int, ...]]:
    """The shapes of an operation's operands, without numbers and tensors that need no gradient."""
    return [shape_of(operand, at) for operand, at in function.next_functions if operand is not None] or [()]


def has_leaf(function: Node) -> bool:
    """Whether an operand is not computed: an input of the network, a parameter, or a number."""
    return any(operand is None or "AccumulateGrad" in operand.name() for operand, _ in function.next_functions)


def dim_of(function: Node) -> int | None:
    """The dimension along which an operation joins, splits or slices; None for a user's own operation."""
    return None if isinstance(function, BackwardCFunction) else _signed(_saved(function, "dim"))


def reduced(function: Node) -> tuple[int, ...]:
    """The dimensions over which a mean, sum or maximum goes; (0,) where it goes over all, as these include 0."""
    return tuple(map(_signed, getattr(function, "_saved_dim", (0,))))


def padding(function: Node) -> tuple[int, ...] | None:
    """The padding, two numbers for each dimension from the last one on; None for a user's own operation."""
    return None if isinstance(function, BackwardCFunction) else tuple(_saved(function, "pad"))


def _saved(function: Node, field: str) -> Any:
    return DOOR.part(function, f"_saved_{field}")


def _signed(dim: int) -> int:
    """A dimension that may be negative, from the unsigned 64-bit number that autograd saves."""
    return dim if dim < 2**63 else dim - 2**64
