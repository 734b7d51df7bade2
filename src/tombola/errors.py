"""The one exception that Tombola raises for what its user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TombolaError(ValueError):
    """Something that the user can mend; its text is one sentence that names the place and the fix."""


class FileError(TombolaError):
    """A file or folder that cannot be read or written, or that another process or run has."""


class DamagedError(FileError):
    """A file that does not say what it should; what it stood for can be made again."""


class DamageWarning(UserWarning):
    """A damaged file was set aside, and what it stood for is made again."""


def unknown(kind: str, name: str, known: Iterable[str]) -> TombolaError:
    """The error for a name that does not exist, offering the nearest one that does.

    Examples:
        >>> print(unknown("method", "inp", ["imp", "snip"]))
        there is no method 'inp'; did you mean 'imp'? (known: imp, snip)
        >>> print(unknown("optimizer", "SGD", ["adam", "sgd"]))
        there is no optimizer 'SGD'; did you mean 'sgd'? (known: adam, sgd)
    """
    names = sorted(known)
    folded = {own.casefold(): own for own in names}
    near = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.5)
    hint = f"; did you mean '{folded[near[0]]}'?" if near else ""
    return TombolaError(f"there is no {kind} '{name}'{hint} (known: {', '.join(names)})")
