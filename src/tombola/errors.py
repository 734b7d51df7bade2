"""The one exception that Tombola raises for what its user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TombolaError(ValueError):
    """Something that the user can mend; its text is one sentence that names the place and the fix."""


class FileError(TombolaError):
    """A file or folder that cannot be read or written, or that another process or run has."""


def unknown(kind: str, name: str, known: Iterable[str]) -> TombolaError:
    """The error for a name that does not exist, offering the nearest one that does.

    Examples:
        >>> print(unknown("method", "inp", ["imp", "snip"]))
        there is no method 'inp'; did you mean 'imp'? (known: imp, snip)
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return TombolaError(f"there is no {kind} '{name}'{hint} (known: {', '.join(names)})")
