"""What there is, by name: listed without importing it, loaded when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from typing import Any, TypeVar

from tombola.errors import TombolaError, unknown

T = TypeVar("T")


class RegistryWarning(UserWarning):
    """An installed distribution offers something by a name that is taken."""


@dataclass(frozen=True)
class Entry:
    """One thing by its name: what is said of it, and where its object lives.

    Args:
        name: what it is called on the command line and in reports.
        where: its object, as "module:object". A class is called to give the object, a function is the object.
        arguments: what a class is called with, or what goes before a function's own arguments.
        settings: the same by keyword.
        paper: its source.
        summary: what it does, in one line.
        unit: what it scores or removes, as "weight", "channel" or "block".
        density: for a method, whether the density is met exactly, is a bound, or is what comes out.
        cost: what it costs, in words.
        needs: what it needs, in a word that its kind knows, as "data" or "training".
        means: for a control, what it means if the control does as well as the ticket.
        matters: for a control that is a sanity check, what it means if the ticket does better.
        version: raised when a default or the mathematics changes, so that earlier results are not taken for today's.
        origin: the distribution that brings it; "" for Tombola's own.
    """

    name: str
    where: str
    arguments: Sequence[Any] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    paper: str = ""
    summary: str = ""
    unit: str = ""
    density: str = ""
    cost: str = ""
    needs: str = ""
    means: str = ""
    matters: str = ""
    version: int = 1
    origin: str = ""

    def load(self) -> Any:
        """The object; TombolaError where it cannot be imported."""
        target = imported(self.where, f"'{self.name}' from")
        arguments = [build(value) for value in self.arguments]
        settings = {name: build(value) for name, value in self.settings.items()}
        if isinstance(target, type):
            return target(*arguments, **settings)
        return partial(target, *arguments, **settings) if arguments or settings else target

    def to_json(self) -> dict[str, str | int]:
        """What is said of it, without what is empty."""
        said = {key: value for key, value in vars(self).items() if isinstance(value, str | int) and value != ""}
        return {key: value for key, value in said.items() if key != "where"}


def build(value: Any) -> Any:
    """A setting, or the object that it stands for: {score = "synflow", …} is that score with these settings."""
    if isinstance(value, list):
        return tuple(build(part) for part in value)
    if isinstance(value, Mapping):
        (kind, name), *settings = value.items()
        entry = REGISTRIES[kind].entry(name)
        return replace(entry, settings={**entry.settings, **dict(settings)}).load()
    return value


REGISTRIES: dict[str, Registry[Any]] = {}
"""All registries by their kinds."""


class Registry(Mapping[str, T]):
    """Objects of one kind by name, in reading order. Names and `entries` cost nothing; an object is loaded by `[name]`.

    Args:
        kind: what its entries are, in the singular, for messages.
        entries: Tombola's own.
        group: the entry points by which installed distributions add theirs, "" if there are none.
    """

    def __init__(self, kind: str, entries: Iterable[Entry], group: str = "") -> None:
        self.kind = kind
        self.group = group
        self.own = {entry.name: entry for entry in entries}
        self._registered: dict[str, Entry] = {}
        self._objects: dict[str, T] = {}
        REGISTRIES[kind] = self

    @staticmethod
    def read(kind: str, file: str, group: str = "") -> Registry[Any]:
        """Tombola's own entries are in a file of `entries/`."""
        text = files("tombola.registry").joinpath("entries", f"{file}.toml").read_text(encoding="utf-8")
        return Registry(kind, [Entry(name, **said) for name, said in tomllib.loads(text).items()], group)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """What is said of each, by name; Tombola's own come first."""
        return {**self.own, **self._installed, **self._registered}

    def entry(self, name: str) -> Entry:
        """What is said of one; TombolaError for a name that does not exist, with the nearest one that does."""
        entries = self.entries
        if name not in entries:
            raise unknown(self.kind, name, entries)
        return entries[name]

    def only(self, **said: Any) -> dict[str, T]:
        """The objects of those entries of which this is said, by name.

        Examples:
            >>> from tombola.registry import SCORES
            >>> list(SCORES.only(unit="channel"))
            ['batch-norm-scale']
        """
        wanted = said.items()
        return {
            name: self[name]
            for name, entry in self.entries.items()
            if all(getattr(entry, key) == value for key, value in wanted)
        }

    def register(self, name: str, **said: Any) -> Callable[[T], T]:
        """A decorator: the object, or the class that is called to give it, is known by this name from now on.

        Args:
            name: must be free; TombolaError otherwise, but for the same object defined again.
            said: the fields of its `Entry`, as paper="…", summary="…".
        """

        def keep(target: Any) -> Any:
            where = f"{target.__module__}:{target.__qualname__}"
            if name in self.entries and self.entries[name].where != where:
                raise TombolaError(f"there already is a {self.kind} '{name}'; register yours by another name")
            self._registered[name] = Entry(name, where, **said)
            self._objects[name] = target() if isinstance(target, type) else target
            return target

        return keep

    def __getitem__(self, name: str) -> T:
        if name not in self._objects:
            self._objects[name] = self.entry(name).load()
        return self._objects[name]

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def _installed(self) -> dict[str, Entry]:
        """What installed distributions add."""
        found: dict[str, Entry] = {}
        for point in entry_points(group=self.group) if self.group else ():
            if point.name in self.own or point.name in found:
                warnings.warn(
                    f"the {self.kind} '{point.name}' of {_origin(point)} has a name that is taken; it can be had as "
                    f"{point.value}",
                    RegistryWarning,
                    stacklevel=2,
                )
                continue
            summary = (point.dist.metadata["Summary"] or "") if point.dist else ""
            found[point.name] = Entry(point.name, point.value, summary=summary, origin=_origin(point))
        return found


def imported(where: str, what: str = "the object") -> Any:
    """What "module:object" names, found from the current folder too; TombolaError where it cannot be had."""
    module, _, path = where.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        target = importlib.import_module(module)
        for part in path.split("."):
            target = getattr(target, part)
    except Exception as error:  # a user's module may fail in any way
        why = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise TombolaError(f"cannot load {what} '{where}': {why}; give package.module:function") from error
    return target


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
