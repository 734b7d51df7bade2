"""The store: one folder a run, found by what the run is."""

from __future__ import annotations

import gc
import os
import re
import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tombola.errors import DamagedError, DamageWarning, FileError
from tombola.files import check_no_link
from tombola.studies.legacy import without_code
from tombola.studies.result import Result
from tombola.studies.run_folder import SETTINGS, RunFolder, under
from tombola.studies.spec import digest
from tombola.training import fingerprint

DIGITS = 12
"""Of its digest in a folder's name."""
LONGEST = 120
"""Letters of what a run is called in its folder's name; the digest tells it apart."""
ODD = r"[^A-Za-z0-9._-]+"
"""What of a label does not go into a folder's name."""


class StaleWarning(UserWarning):
    """Results that are read, or cannot be, were made by another version of the package's source."""


@dataclass(frozen=True)
class Store:
    """Run folders under one root, each named by what the run is called and the digest of what it is.

    Args:
        root: the folder of the folders.
        fresh: make finished runs anew, once in the life of this object.
        exact: use a finished run only if it was made under today's conditions; one made under others stays beside it.
    """

    root: Path
    fresh: bool = False
    exact: bool = False
    _renewed: set[Path] = field(default_factory=set, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    def folder(self, name: str, settings: Mapping[str, Any]) -> RunFolder:
        """Where the run of these settings is, or is to be.

        What it is called, and the conditions, may have been others; a finished run goes before one that was killed,
        and today's conditions before others.
        """
        own = digest(settings)
        here = under(settings)
        found = [folder for folder in self._with(own) if not self.exact or under(folder.settings() or {}) == here]
        if found:
            return max(found, key=lambda folder: (folder.is_finished, under(folder.settings() or {}) == here))
        if self._unrecorded and digest(without_code(dict(settings))) in self._unrecorded:
            warnings.warn(
                f"{name} is from a version that did not record what your own code does; it is made again",
                StaleWarning,
                stacklevel=2,
            )
        path = self.root / f"{re.sub(ODD, '-', name)[:LONGEST].strip('-')}-{own[:DIGITS]}"
        is_taken = (path / SETTINGS).exists()  # A folder without settings is of a run that was killed as it began.
        path = path.with_name(f"{path.name}-{fingerprint(here)[:6]}") if is_taken else path
        check_no_link(path)
        return RunFolder(path)

    def renews(self, folder: RunFolder) -> bool:
        """Whether what a folder holds is to be made anew; once, so that a call's later runs find it."""
        anew = self.fresh and folder.path not in self._renewed
        self._renewed.add(folder.path)
        return anew

    def adopt(self, results: Iterable[Result]) -> None:
        """Take finished runs from elsewhere; their folders then hold what a run leaves, but no ticket."""
        for result in results:
            folder = RunFolder(self.root / re.sub(r"^\.+$", "-", re.sub(ODD, "-", result.digest) or "-"))
            if folder.result() is None:
                with folder.held():
                    folder.begin(result.settings)
                    folder.finish(result)
        self.__dict__.pop("_index", None)

    def results(self) -> list[Result]:
        """Every finished run; one that is damaged is warned of and left out."""
        entries = os.scandir(self.root) if self.root.is_dir() else ()
        folders = [RunFolder(path) for path in sorted(entry.path for entry in entries if entry.is_dir())]
        with _without_collection():
            return [result for folder in folders if (result := _undamaged(folder)) is not None]

    def _with(self, own: str) -> list[RunFolder]:
        """The folders of a run: those that its digest names, and those that the first version named by another."""
        named = [path.parent for path in self.root.glob(f"*-{own[:DIGITS]}*/settings.json")]
        earlier = self._index.get(own, ())
        folders = [RunFolder(path) for path in sorted({*named, *earlier})]
        return [folder for folder in folders if (held := _known(folder)) and digest(held) == own]

    @cached_property
    def _index(self) -> dict[str, list[Path]]:
        """The folders of the first version by today's digests."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.root.glob("*/settings.json")):
            own = digest(_known(RunFolder(path.parent)))
            if f"-{own[:DIGITS]}" not in path.parent.name:
                found.setdefault(own, []).append(path.parent)
        return found

    @cached_property
    def _unrecorded(self) -> set[str]:
        """The runs of the first version whose code it did not record, by what else they are."""
        held = [_known(RunFolder(own)) for folders in self._index.values() for own in folders]
        return {digest(without_code(settings)) for settings in held}


def _undamaged(folder: RunFolder) -> Result | None:
    """What a run came to; None before it is finished, and where that is damaged."""
    try:
        return folder.result()
    except DamagedError as error:
        warnings.warn(f"{error}; it is left out", DamageWarning, stacklevel=3)
        return None


@contextmanager
def _without_collection() -> Generator[None]:
    """No search for garbage while much is read, of which nothing is garbage: it would take half of the time."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


def _known(folder: RunFolder) -> dict[str, Any]:
    """The settings of a run; none where they cannot be read, so that it is no run that others could use."""
    try:
        return folder.settings() or {}
    except FileError:
        return {}
