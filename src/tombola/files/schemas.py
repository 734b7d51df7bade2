"""What JSON files say, checked: against a dataclass by msgspec, within bounds, every number finite."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tombola.errors import DamagedError, FileError
from tombola.files.reading import content_of
from tombola.files.shown_text import printable

T = TypeVar("T")

FORMAT = 1
"""The version of the form of results, studies and settings; files that do not name one are of the first."""


class NewerFormat(ValueError):
    """A file is in a form that only a newer version reads."""


UNBOUNDED = ("low", "high", "low90", "high90", "detectable")
"""The only fields that may be infinite: what one seed says of a difference has no bounds."""
LARGEST = 2**28
"""Bytes of a JSON file that is read."""
WIDEST = 2**128
"""No integer in a JSON file that is read is larger; each can then be a float, too."""
ZEROS = str.maketrans("123456789", "000000000")
"""Makes a run of zeros of an integer: `WIDEST` has 39 digits."""
DEEPEST = 64
"""Nested lists and objects in a JSON file that is read."""


def json_of(text: str | bytes) -> Any:
    """What a text of JSON holds, as `strict_json`, made safe to show."""
    content = strict_json(text)
    # Where nothing is escaped and all is ASCII, there is nothing that is not safe.
    is_plain = isinstance(text, str) and text.isascii() and "\\" not in text
    return content if is_plain else printable(content)


def strict_json(text: str | bytes) -> Any:
    """What a text of JSON holds.

    Args:
        text: at most `LARGEST` bytes, nested at most `DEEPEST` deep, every number finite.

    Raises:
        ValueError: it is not so, in words that continue "it is damaged:".
    """
    if len(text) > LARGEST:
        raise ValueError(f"it has {len(text):,} bytes, more than any that Tombola writes")
    try:
        return _decoded(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_as(kind: type[T], content: Any) -> T:
    """A dataclass from what JSON holds of it: types and ranges are checked, fields of a newer version are left out.

    Raises:
        ValueError: it does not fit, in words that name the field; or it is of a newer version's format.
    """
    if isinstance(content, Mapping):
        check_format(content)
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(str(error))) from error


def check_format(content: Any) -> None:
    """Refuse what a newer Tombola wrote in a form of its own.

    Raises:
        NewerFormat: the content names a format beyond this version's.
        ValueError: it is no object, or names no format that there could be.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not an object with fields")
    version = content.get("format", FORMAT)
    if type(version) is not int or version < 1:
        raise ValueError(f"its format is {version!r}, not a number from 1")
    if version > FORMAT:
        raise NewerFormat(
            f"was written by a newer Tombola (format {version}; this one reads up to {FORMAT}); upgrade it"
        )


def as_written(path: Path, parse: Callable[[str], T], mend: str) -> T | None:
    """What a file says; None if there is no file.

    Args:
        path: of the file.
        parse: what makes of its text what it stands for; a ValueError says why it cannot.
        mend: what its user can do if it is damaged.

    Raises:
        FileError: the file cannot be read, or is of a newer version.
        DamagedError: it does not say what it should.
    """
    try:
        return parse(content_of(path, LARGEST).decode())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}; {mend}") from error
    except NewerFormat as error:
        raise FileError(f"{path} {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged ({error}); {mend}") from error


def _decoded(text: str | bytes) -> Any:
    """What JSON holds, checked; Python's reader has the words where it is none, and reads what JSON does not know."""
    text = text.decode() if isinstance(text, bytes) else text
    try:
        content = msgspec.json.decode(text)  # which reads no number that is not finite
    except (msgspec.DecodeError, UnicodeEncodeError):
        content = json.loads(text)
    else:
        if text.count("{") + text.count("[") <= DEEPEST and "0" * 39 not in text.translate(ZEROS):
            return content
    _check(content)
    return content


def _check(content: Any) -> None:
    """Refuse what is nested too deep, and numbers that are not finite: Python writes them, though JSON knows none."""
    level: list[tuple[object, Any]] = [(None, content)]
    for _ in range(DEEPEST + 1):
        inner: list[tuple[object, Any]] = []
        for key, value in level:
            kind = type(value)
            if kind is dict:
                inner += value.items()
            elif kind is list:
                inner += enumerate(value)
            elif kind is float:
                if not (math.isfinite(value) or (math.isinf(value) and key in UNBOUNDED)):
                    raise ValueError(f"it holds the number {value}; every number must be finite")
            elif kind is int and abs(value) > WIDEST:
                raise ValueError("it holds a whole number larger than any that Tombola writes")
        if not inner:
            return
        level = inner
    raise ValueError("it is nested too deep")


def _in_words(error: str) -> str:
    """msgspec's error as a clause: the field first, then what is expected there."""
    what, _, place = error.partition(" - at `$")
    field = place.removesuffix("`").lstrip(".") or "it"
    return f"{field}: {what[:1].lower()}{what[1:]}"
