"""Text from files and names, made safe to show: on a terminal, in a chart, on a page, in another file's metadata."""

from __future__ import annotations

import unicodedata
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories of what controls a terminal or the direction of writing, of halves of characters, of nothing."""


def printable_text(text: str) -> str:
    """The text with a replacement character for each one that is not to be seen.

    Examples:
        >>> printable_text("imp\\x1b[31m"), printable_text("naïve ×2")
        ('imp�[31m', 'naïve ×2')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(REPLACEMENT if unicodedata.category(letter) in HIDDEN else letter for letter in text)


def printable(value: Any) -> Any:
    """What JSON holds, with all its texts and keys made safe to show."""
    if isinstance(value, str):
        return printable_text(value)
    if isinstance(value, dict):
        return {printable_text(key): printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [printable(item) for item in value]
    return value
