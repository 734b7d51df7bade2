"""Files of one JSON value a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tombola.errors import FileError
from tombola.files.schemas import NewerFormat, as_written, json_of

T = TypeVar("T")


def as_lines(values: Iterable[Any]) -> str:
    """The text of such a file."""
    return "".join(json.dumps(value) + "\n" for value in values)


def text_of(path: Path) -> str:
    """What a file holds; nothing if it is not there; FileError if it cannot be read as text."""
    return as_written(path, str, "restore it, or remove it to begin anew") or ""


def parsed(path: Path, text: str, parse: Callable[[Any], T]) -> Iterator[T]:
    """What each line of a file's text stands for; FileError naming the line that is damaged."""
    for number, line in enumerate(text.rstrip("\n").split("\n") if text else (), start=1):
        try:
            yield parse(json_of(line))
        except NewerFormat as error:
            raise FileError(f"{path} {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(f"{path} is damaged in line {number} ({error}); remove that line") from error
