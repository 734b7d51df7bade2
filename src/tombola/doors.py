"""Doors: private parts of other libraries that Tombola uses, and the error when a new version lacks one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from tombola.errors import TombolaError


class DoorError(TombolaError):
    """Another library no longer has a private part that Tombola needs."""


@dataclass(frozen=True)
class Door:
    """One library, its tested versions, and the one file of Tombola that touches its private parts.

    Args:
        library: the name of its distribution.
        tested: the tested versions, as pyproject.toml bounds them.
        file: the file to change when the library changes.

    Examples:
        >>> Door("numpy", ">=2", "here").part([], "append.__name__")
        'append'
    """

    library: str
    tested: str
    file: str

    def changed(self, part: str) -> DoorError:
        """The error for a private part that is missing or has changed.

        Args:
            part: its dotted name.
        """
        return DoorError(
            f"{self.library} {version(self.library)} has no '{part}' as Tombola's {self.file} knows it, which is "
            f"private to {self.library}; install '{self.library}{self.tested}', or mend that file"
        )

    def part(self, owner: Any, path: str, called: str = "") -> Any:
        """The attribute of an object under a dotted path.

        Args:
            owner: the object.
            path: names of attributes, joined by dots.
            called: the object's name in the error; its own or its class's if empty.

        Raises:
            DoorError: an attribute is missing.
        """
        value = owner
        for name in path.split("."):
            try:
                value = getattr(value, name)
            except AttributeError:
                owner_name = called or getattr(owner, "__name__", type(owner).__name__)
                raise self.changed(f"{owner_name}.{path}") from None
        return value
