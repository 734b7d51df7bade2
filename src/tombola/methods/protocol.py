"""The contract of a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from tombola.structure import Granularity
from tombola.tickets import Scope, Ticket, falls_short
from tombola.training import Run, Task

DensityKind = Literal["exact", "bound", "outcome"]


def kind_at(scope: Scope, granularity: Granularity) -> DensityKind:
    """The kind of density of a method that keeps as many units as scope and granularity say."""
    return "bound" if falls_short(scope) or getattr(granularity, "round_to", 1) > 1 else "exact"


class Method(Protocol):
    """What every method is: a frozen dataclass that turns a task into a ticket.

    A method whose masks bring removed weights back also has an attribute `regrow` that is True. One whose stages go on
    from one another's weights, whatever its ticket starts from, has `continues`.

    Attributes:
        density_kind: whether the ticket has exactly the density (`exact`), at most the density (`bound`), or the
            density that the search comes to (`outcome`).
        density: the share of units to keep, above 0 and at most 1.
        granularity: what is removed together.
    """

    @property
    def density_kind(self) -> DensityKind: ...

    @property
    def density(self) -> float: ...

    @property
    def granularity(self) -> Granularity: ...

    def find(self, task: Task, run: Run) -> Ticket:
        """Search for a ticket of a task; users call `tombola.find`, which adds the provenance.

        Args:
            task: what the network learns.
            run: the seed and the device, where stages and scores are kept, and the ledger of costs.

        Returns:
            The ticket, with the provenance that only the search knows.
        """
        ...


class Watching(Protocol):
    """What a method's `watch` gives, to search in anybody's loop.

    `state_dict` and `load_state_dict` carry it over a kill, beside those of model and optimizer.
    """

    @property
    def ticket(self) -> Ticket:
        """The ticket of now."""
        ...

    @property
    def finished(self) -> bool:
        """Whether it has come to what its method looks for."""
        ...

    def epoch_end(self) -> bool:
        """Tell it that an epoch has ended; True when the ticket is to be drawn."""
        ...

    def detach(self) -> None:
        """Remove all hooks."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> None: ...
