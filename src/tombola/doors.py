"""Doors: what Tombola uses of other libraries that they do not promise, and what it says when that is gone."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from tombola.errors import TombolaError


class DoorError(TombolaError):
    """Another library no longer has a private part that Tombola rests on."""


@dataclass(frozen=True)
class Door:
    """One library, the versions of it that are tested, and the one file that touches its private parts.

    tested: as in pyproject.toml. file: where the code is that has to change when the library does.
    """

    library: str
    tested: str
    file: str

    def changed(self, part: str) -> DoorError:
        """The error for a private part that is not there, or is not what it was."""
        return DoorError(
            f"{self.library} {version(self.library)} has no '{part}' as Tombola's {self.file} knows it, which is "
            f"private to {self.library}; install '{self.library}{self.tested}', or mend that file"
        )

    def part(self, owner: Any, path: str, called: str = "") -> Any:
        """What an object has under a dotted path; called: the object's name in the error."""
        found = owner
        for name in path.split("."):
            try:
                found = getattr(found, name)
            except AttributeError:
                owns = called or getattr(owner, "__name__", type(owner).__name__)
                raise self.changed(f"{owns}.{path}") from None
        return found
