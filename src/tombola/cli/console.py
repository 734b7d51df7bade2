"""What a command prints: tables for people, or one line of JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console


def console() -> Console:
    """Standard output; 140 columns wide where it is no terminal, since rich would cut tables at 80."""
    terminal = Console(markup=False)  # Names may hold brackets.
    return terminal if terminal.is_terminal else Console(markup=False, width=140)


def print_json(content: Mapping[str, Any]) -> None:
    """Print one line of strict JSON; NaN and infinities, which JSON does not know, become null.

    Examples:
        >>> print_json({"accuracy": float("nan"), "seeds": (0, 1)})
        {"accuracy": null, "seeds": [0, 1]}
    """
    print(strict_line(content))


def strict_line(content: Mapping[str, Any]) -> str:
    """One line of strict JSON; NaN and infinities become null."""
    return json.dumps(_strict(content))


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
