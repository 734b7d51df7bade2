"""Files of one JSON value a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tombola.errors import FileError
from tombola.files.schemas import NewerFormat, json_of

T = TypeVar("T")


def as_lines(values: Iterable[Any]) -> str:
    """The text of such a file."""
    return "".join(json.dumps(value) + "\n" for value in values)


def text_of(path: Path) -> str:
    """What a file holds; nothing if it is not there."""
    return path.read_text() if path.exists() else ""


def parsed(path: Path, text: str, parse: Callable[[Any], T]) -> Iterator[T]:
    """What each line of a file's text stands for; FileError naming the line that is damaged."""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            yield parse(json_of(line))
        except NewerFormat as error:
            raise FileError(f"{path} {error}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(f"{path} is damaged in line {number} ({error}); remove that line") from error
