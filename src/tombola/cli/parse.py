"""Reads a command's options from several dataclasses at once."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import field, make_dataclass
from typing import Annotated, Any, TypeVar

import tyro

from tombola.cli.guide import guide
from tombola.cli.scope_files import with_densities
from tombola.errors import TombolaError

Options = TypeVar("Options")

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
        TombolaError: a number is given in percent, or a file after `--scope` holds no densities.
    """
    words = with_densities(words)
    for word in words:
        if percent := re.fullmatch(r"(?:--.*=)?(\d*\.?\d+)%", word):
            raise TombolaError(f"'{word}' is in percent; give the share, as {float(percent[1]) / 100:g}")
    columns = [
        (name, Annotated[type(default), tyro.conf.arg(name="")], field(default=default))  # ty: ignore[invalid-type-form]
        for name, default in parts.items()
    ]
    return read(make_dataclass("Options", columns), command, words, about)


def read(kind: type[Options], command: str, words: Sequence[str], about: str | None = None) -> Options:
    """Read options of one dataclass; exit with tyro's message where they are wrong or `--help` is among them.

    Args:
        kind: the dataclass.
        command: the command's name and operands, as the help's first line shows them.
        words: the typed options.
        about: the text above the options; the dataclass's own if None.
    """
    described = "\n\n".join(filter(None, [prose(kind.__doc__ if about is None else about), guide(command.split()[0])]))
    try:
        return tyro.cli(kind, args=words, prog=f"tombola {command}", description=described)
    except SystemExit as ended:
        lists = [word for word in words if re.fullmatch(r"[^-,][^,\s]*(,[^,\s]+)+", word)]
        if ended.code and lists:
            print(f"tombola: separate by spaces, as {lists[0].replace(',', ' ')}", file=sys.stderr)
        raise


def seconds_of(budget: str) -> float:
    """Convert a time as typed on the command line to seconds.

    Raises:
        TombolaError: if it is neither a number with s, min or h, nor "none".

    Examples:
        >>> seconds_of("90s"), seconds_of("5min"), seconds_of("2h"), seconds_of("none")
        (90.0, 300.0, 7200.0, inf)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", budget)
    if budget != "none" and match is None:
        raise TombolaError(f"'{budget}' is no time; give one as 90s, 5min or 2h, or none")
    return math.inf if match is None else float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]]
