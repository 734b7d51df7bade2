"""Text from files and names, made safe to show: on a terminal, in a chart, on a page, in another file's metadata."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories of what controls a terminal or the direction of writing, of halves of characters, of nothing."""

CONTROLS = re.compile("\x1b\\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What sets a colour, and single characters that control a terminal or the direction of writing."""


def printable_text(text: str) -> str:
    """The text with a replacement character for each one that is not to be seen.

    Examples:
        >>> printable_text("imp\\x1b[31m"), printable_text("naïve ×2")
        ('imp�[31m', 'naïve ×2')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(REPLACEMENT if unicodedata.category(letter) in HIDDEN else letter for letter in text)


def harmless(text: str) -> str:
    """The text with nothing in it that controls a terminal, but for colours.

    Examples:
        >>> harmless("\\x1b[31mred\\x1b[0m\\n\\x1b]0;title\\x07")
        '\\x1b[31mred\\x1b[0m\\n�]0;title�'
    """
    return CONTROLS.sub(lambda found: found[0] if len(found[0]) > 1 else REPLACEMENT, text)


def printable(value: Any) -> Any:
    """What JSON holds, with all its texts and keys made safe to show."""
    if isinstance(value, str):
        return printable_text(value)
    if isinstance(value, dict):
        return {printable_text(key): printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [printable(item) for item in value]
    return value
