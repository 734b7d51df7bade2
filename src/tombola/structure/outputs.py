"""The tensors that a network gives, whatever they are wrapped in: all of them keep their shapes when it is cut."""

from __future__ import annotations

import inspect
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from tombola.errors import TombolaError
from tombola.nested import leaves_of


def outputs_in(result: Any) -> list[Tensor]:
    """The tensors in what a network returned, in nests and as attributes of any object.

    What transformers keep between two calls is left out: it is as wide as the network that made it.

    Args:
        result: whatever a network returned.

    Raises:
        TombolaError: if it holds a function or an iterator, of which nobody knows what it will give.

    Examples:
        >>> import types, torch
        >>> outputs_in(types.SimpleNamespace(levels=[torch.ones(1)], name="pyramid"))
        [tensor([1.])]
    """
    return list(_tensors(result, set()))


def _tensors(value: Any, visited: set[int]) -> Iterator[Tensor]:
    for leaf in leaves_of(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif inspect.isroutine(leaf) or isinstance(leaf, Iterator):
            raise TombolaError(
                f"the network gives a {type(leaf).__name__}, and what it will hold cannot be known; let it give "
                "tensors, or prune weights instead of channels"
            )
        elif id(leaf) not in visited and not _is_cache(leaf):
            visited.add(id(leaf))
            for part in _inside(leaf):
                yield from _tensors(part, visited)


def _inside(value: Any) -> list[Any]:
    """What an object holds: its attributes, or its elements."""
    if isinstance(value, set | frozenset | deque):
        return list(value)
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*getattr(value, "__dict__", {}).values(), *(getattr(value, n) for n in slots if hasattr(value, n))]


def _is_cache(value: Any) -> bool:
    library = sys.modules.get("transformers.cache_utils")
    return library is not None and isinstance(value, library.Cache)
