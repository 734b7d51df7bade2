"""The contract of a method."""

from __future__ import annotations

from typing import Literal, Protocol

from tombola.structure import Granularity
from tombola.tickets import Ticket
from tombola.training import Run, Task

DensityKind = Literal["exact", "bound", "outcome"]


class Method(Protocol):
    """A frozen dataclass that turns a task into a ticket.

    density_kind: whether the asked density is met exactly, is a bound, or is what the search comes to. A method whose
    masks bring removed weights back says so by an attribute `regrow` that is True.
    """

    @property
    def density_kind(self) -> DensityKind: ...

    @property
    def density(self) -> float: ...

    @property
    def granularity(self) -> Granularity: ...

    def find(self, task: Task, run: Run) -> Ticket: ...
