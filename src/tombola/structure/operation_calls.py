"""One call of an operation, as its rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tombola.structure.links import Links
from tombola.structure.marks import Marks


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operation.

    Args:
        name: the operation's name, without its overload and the underscore of one that works in place.
        function: the operation.
        args: its arguments.
        kwargs: its arguments by name.
        results: the tensors that it gave.
        marks: gives the marks of a tensor; None for one that comes from no channels.
        links: where it is noted which channels meet.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: list[Tensor]
    marks: Callable[[Any], Marks | None]
    links: Links

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return tensors_among((self.args, tuple(self.kwargs.values())))

    def given(self, place: int, name: str, otherwise: Any = None) -> Any:
        """An argument by its place or name."""
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, otherwise)

    def lose(self) -> None:
        """The operation is not understood: all channels that it takes have to stay."""
        for tensor in self.tensors:
            self.links.pin(self.marks(tensor), self.name)


def tensors_among(values: Any) -> list[Tensor]:
    """The tensors in nests of lists and tuples."""
    if isinstance(values, Tensor):
        return [values]
    return [t for value in values for t in tensors_among(value)] if isinstance(values, list | tuple) else []
