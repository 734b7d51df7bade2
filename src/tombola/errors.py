"""The one exception that Tombola raises for mistakes that its user can correct."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TombolaError(ValueError):
    """A mistake that the user can correct; the text is one sentence that names the place and the fix."""


class FileError(TombolaError):
    """A file or folder cannot be read or written, or another process or run uses it."""


class DamagedError(FileError):
    """A file that does not say what it should; what it stood for can be made again."""


class DamageWarning(UserWarning):
    """A damaged file was set aside, and what it stood for is made again."""


def unknown(kind: str, name: str, known: Iterable[str]) -> TombolaError:
    """The error for a name that does not exist; it suggests the nearest name that does.

    Args:
        kind: what the name stands for, as "method".
        name: the name that was given.
        known: all names that exist.

    Examples:
        >>> print(unknown("method", "inp", ["imp", "snip"]))
        there is no method 'inp'; did you mean 'imp'? (known: imp, snip)
        >>> print(unknown("optimizer", "SGD", ["adam", "sgd"]))
        there is no optimizer 'SGD'; did you mean 'sgd'? (known: adam, sgd)
        >>> print(unknown("method", "imp,snip", ["imp", "snip"]))
        there is no method 'imp,snip'; separate by spaces, as imp snip
    """
    names = sorted(known)
    by_folded_name = {name.casefold(): name for name in names}
    parts = [part for part in str(name).casefold().split(",") if part]
    if len(parts) > 1 and by_folded_name.keys() >= {*parts}:
        return TombolaError(f"there is no {kind} '{name}'; separate by spaces, as {' '.join(parts)}")
    near = difflib.get_close_matches(str(name).casefold(), by_folded_name, n=1, cutoff=0.5)
    hint = f"; did you mean '{by_folded_name[near[0]]}'?" if near else ""
    return TombolaError(f"there is no {kind} '{name}'{hint} (known: {', '.join(names)})")
