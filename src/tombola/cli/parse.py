"""Reading a command's options from several dataclasses at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, make_dataclass
from typing import Annotated, Any

import tyro


def parse(command: str, words: Sequence[str], about: str | None, **parts: Any) -> Any:
    """Options as `.name` for each dataclass instance given by name; the instance is the default.

    The parts' own fields are options without a prefix; what they nest keeps its name as prefix.
    """
    columns = [
        (name, Annotated[type(default), tyro.conf.arg(name="")], field(default=default))  # ty: ignore[invalid-type-form]
        for name, default in parts.items()
    ]
    return tyro.cli(make_dataclass("Options", columns), args=words, prog=f"tombola {command}", description=about)
