"""Settings as plain JSON: the type and every field that differs from its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any


def describe(value: Any) -> Any:
    """What a dataclass is set to, as JSON; a field at its default is left out, so that new ones rename nothing.

    >>> from tombola.scores import Snip
    >>> describe(Snip(batches=4))
    {'type': 'Snip', 'batches': 4}
    """
    if is_dataclass(value) and not isinstance(value, type):
        named: dict[str, Any] = {"type": type(value).__name__}
        for field in fields(value):
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            own = getattr(value, field.name)
            if own is not default and own != default:
                named[field.name] = describe(own)
        return named
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [describe(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if name else repr(value)
