"""Named objects that can be listed without an import; each is loaded when its name is looked up."""

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
    """An installed distribution registers a name that is taken."""


@dataclass(frozen=True)
class Entry:
    """The description of one named object, and where the object lives.

    Args:
        name: what the command line and reports call it.
        where: the object, as "module:object". A class is called to make the object; a function is the object.
        arguments: positional arguments of the class, or those that the function is always called with first.
        settings: keyword arguments of the class or function.
        paper: its source.
        summary: what it does, in one line.
        unit: what it scores or removes, as "weight", "channel" or "block".
        density: for a method: "exact", "bound" (the ticket may be sparser) or "outcome" (found, not asked for).
        cost: what it costs, in words.
        needs: what it needs, in a word that its kind knows, as "data" or "training".
        means: for a control, what it means if the control does as well as the ticket.
        matters: for a control that is a sanity check, what it means if the ticket does better.
        metric: for a loss, the metric that goes with it.
        version: raised when a default or the mathematics changes, so that old results are not taken for new ones.
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
    metric: str = ""
    version: int = 1
    origin: str = ""

    def load(self) -> Any:
        """Import and make the object. Raises TombolaError if the import fails."""
        target = imported(self.where, f"'{self.name}' from")
        arguments = [build(value) for value in self.arguments]
        settings = {name: build(value) for name, value in self.settings.items()}
        if isinstance(target, type):
            return target(*arguments, **settings)
        return partial(target, *arguments, **settings) if arguments or settings else target

    def to_json(self) -> dict[str, str | int]:
        """The fields of text and the version; empty fields and `where` are left out."""
        filled = {key: value for key, value in vars(self).items() if isinstance(value, str | int) and value != ""}
        return {key: value for key, value in filled.items() if key != "where"}


def build(value: Any) -> Any:
    """Turn a setting of an entry into its value: {score = "synflow", …} becomes that score with these settings."""
    if isinstance(value, list):
        return tuple(build(part) for part in value)
    if isinstance(value, Mapping):
        (kind, name), *settings = value.items()  # the first key of the table names the registry
        entry = REGISTRIES[kind].entry(name)
        return replace(entry, settings={**entry.settings, **dict(settings)}).load()
    return value


REGISTRIES: dict[str, Registry[Any]] = {}
"""All registries by their kinds."""


class Registry(Mapping[str, T]):
    """A mapping from names to objects of one kind, in reading order. `[name]` imports an object; the rest imports none.

    Args:
        kind: what its entries are, in the singular, for messages.
        entries: Tombola's own.
        group: the entry-point group by which installed distributions add theirs; "" if they cannot.

    Examples:
        >>> from tombola.registry import SCORES
        >>> SCORES["snip"], SCORES.entry("snip").paper
        (Snip(batches=1, batch_norm='train'), 'Lee, Ajanthan, Torr, ICLR 2019')
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
        """The registry whose own entries stand in `entries/<file>.toml`."""
        text = files("tombola.registry").joinpath("entries", f"{file}.toml").read_text(encoding="utf-8")
        return Registry(kind, [Entry(name, **fields) for name, fields in tomllib.loads(text).items()], group)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All entries by name: Tombola's own, those of installed distributions, those registered in this process."""
        return {**self.own, **self._installed, **self._registered}

    def entry(self, name: str) -> Entry:
        """The entry of a name. Raises TombolaError, which suggests the nearest name, if there is none."""
        entries = self.entries
        if name not in entries:
            raise unknown(self.kind, name, entries)
        return entries[name]

    def entry_at(self, where: str) -> Entry | None:
        """The first of Tombola's own entries whose object lives at "module:object", if there is one."""
        return next((entry for entry in self.own.values() if entry.where == where), None)

    def only(self, **fields: Any) -> dict[str, T]:
        """The objects, by name, of the entries that have these values.

        Args:
            fields: fields of an `Entry` and their values, as unit="channel".

        Examples:
            >>> from tombola.registry import SCORES
            >>> list(SCORES.only(unit="channel"))
            ['batch-norm-scale']
        """
        return {
            name: self[name]
            for name, entry in self.entries.items()
            if all(getattr(entry, key) == value for key, value in fields.items())
        }

    def register(self, name: str, **fields: Any) -> Callable[[T], T]:
        """A decorator that registers a function, or a class whose instance is the object, in this process.

        Args:
            name: a free name.
            fields: more fields of its `Entry`, as paper="…", summary="…".

        Raises:
            TombolaError: another object has the name. The same object may be defined again, as in a notebook.

        Examples:
            >>> losses = Registry("loss", [])
            >>> @losses.register("absolute", summary="the mean absolute error")
            ... def absolute(outputs, targets):
            ...     return (outputs - targets).abs().mean()
            >>> losses["absolute"] is absolute
            True
        """

        def add(target: Any) -> Any:
            where = f"{target.__module__}:{target.__qualname__}"
            if name in self.entries and self.entries[name].where != where:
                raise TombolaError(f"there already is a {self.kind} '{name}'; register yours by another name")
            self._registered[name] = Entry(name, where, **fields)
            self._objects[name] = target() if isinstance(target, type) else target
            return target

        return add

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
        """The entries that installed distributions add."""
        installed: dict[str, Entry] = {}
        for point in entry_points(group=self.group) if self.group else ():
            if point.name in self.own or point.name in installed:
                warnings.warn(
                    f"the {self.kind} '{point.name}' of {_origin(point)} has a name that is taken; use it as "
                    f"{point.value}",
                    RegistryWarning,
                    stacklevel=2,
                )
                continue
            summary = (point.dist.metadata["Summary"] or "") if point.dist else ""
            installed[point.name] = Entry(point.name, point.value, summary=summary, origin=_origin(point))
        return installed


def imported(where: str, what: str = "the object") -> Any:
    """Import the object that "module:object" names.

    Args:
        where: "module:object", where the module may lie in the current folder and the object may have dots.
        what: what the error calls it.

    Returns:
        The object itself; a class is not called.

    Raises:
        TombolaError: the module cannot be imported or lacks the object.

    Examples:
        >>> imported("math:pi")
        3.141592653589793
    """
    module, _, path = where.partition(":")
    # An installed command has its own folder first on the path, not the user's.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        target = importlib.import_module(module)
        for part in path.split("."):
            target = getattr(target, part)
    except Exception as error:  # a user's module may fail in any way
        why = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        form = (
            f"{module.removesuffix('.py')}:{path}, without .py" if module.endswith(".py") else "package.module:function"
        )
        raise TombolaError(f"cannot load {what} '{where}': {why}; give {form}") from error
    return target


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
