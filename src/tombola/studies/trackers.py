"""Trackers: what shows runs elsewhere is told of them in four calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tombola.studies.result import Result


class Tracker(Protocol):
    """Is told of each run that ended: where it begins, its epochs, and how it ended.

    Examples:
        >>> class Counts:
        ...     def begin(self, name, settings): self.rows = 0
        ...     def epoch(self, row): self.rows += 1
        ...     def end(self, result): print(f"{self.rows} epochs")
        ...     def fail(self, reason): print(reason)
    """

    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        """A run's calls begin.

        Args:
            name: of its folder.
            settings: what the run is.
        """
        ...

    def epoch(self, row: Mapping[str, int | float]) -> None:
        """One epoch of the run, as a row of `Result.history`."""
        ...

    def end(self, result: Result) -> None:
        """The run came to its end."""
        ...

    def fail(self, reason: str) -> None:
        """The run failed."""
        ...
