"""Where words go: a table for people, or one JSON line for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console


def console() -> Console:
    """Standard output, wide enough for a table when it is not a terminal."""
    own = Console(markup=False)  # names may hold brackets
    return own if own.is_terminal else Console(markup=False, width=140)


def print_json(content: Mapping[str, Any]) -> None:
    """One line of strict JSON; what is not a finite number becomes null."""
    print(json.dumps(_strict(content)))


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
