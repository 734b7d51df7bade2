"""Reads a command's options from several dataclasses at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field, make_dataclass
from typing import Annotated, Any

import tyro

from tombola.errors import TombolaError

SECTION = re.compile(r"^( *)(Args|Returns|Raises|Examples):\n((?:\1 +.*(?:\n|\Z)|\n)*)", re.MULTILINE)
"""A section of a docstring: its indentation, its heading, and the lines below that are indented further or empty."""


def prose(docstring: str | None) -> str:
    """A docstring without its sections, one line a paragraph.

    Examples:
        >>> prose("Prune a\\n    network.\\n\\n    Args:\\n        density: kept share.")
        'Prune a network.'
    """
    paragraphs = SECTION.sub("", docstring or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())


def parse(command: str, words: Sequence[str], about: str | None, **parts: Any) -> Any:
    """Read options; exit with tyro's message where they are wrong or `--help` is among them.

    Args:
        command: the command's name and operands, as the help's first line shows them.
        words: the typed options.
        about: the text above the options. Its sections (`Args:` and so on) are left out: tyro shows each entry of
            `Args:` beside its option.
        parts: dataclass instances, which hold the defaults. Their fields are options without a prefix; the fields of
            a dataclass within them have its name as prefix.

    Returns:
        An object with the read instances as attributes, named as in `parts`.

    Raises:
        TombolaError: a number is given in percent.
    """
    for word in words:
        if percent := re.fullmatch(r"(?:--.*=)?(\d*\.?\d+)%", word):
            raise TombolaError(f"'{word}' is in percent; give the share, as {float(percent[1]) / 100:g}")
    columns = [
        (name, Annotated[type(default), tyro.conf.arg(name="")], field(default=default))  # ty: ignore[invalid-type-form]
        for name, default in parts.items()
    ]
    return tyro.cli(
        make_dataclass("Options", columns),
        args=words,
        prog=f"tombola {command}",
        description=prose(about),
    )
