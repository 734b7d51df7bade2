"""Settings as plain JSON: the type and every field that differs from its default."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

from torch import Tensor

from tombola.tickets import digest_of


def describe(value: Any) -> Any:
    """What a dataclass is set to, as JSON; a field at its default is left out, so that new ones rename nothing.

    Examples:
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
    if isinstance(value, partial):
        return {"type": "partial", "of": describe(value.func), "args": describe(value.args), **describe(value.keywords)}
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, FunctionType | BuiltinFunctionType):
        own = f"{value.__module__}.{value.__qualname__}{_body(value)}"
        held = _held(value)
        return {"type": own, "held": held} if held else own
    if isinstance(value, MethodType):
        held = {name: _plain(own) for name, own in getattr(value.__self__, "__dict__", {}).items()}
        return {"type": describe(value.__func__), "of": describe(type(value.__self__)), "held": held}
    if isinstance(value, Tensor):
        return {"type": "torch.Tensor", "values": digest_of({"": value})}
    return {"type": f"{type(value).__module__}.{type(value).__qualname__}"} | describe(getattr(value, "__dict__", {}))


def _body(function: Any) -> str:
    """A fingerprint of what a function does, so that an edited loss or a second lambda is another setting."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    constants = [constant for constant in code.co_consts if not isinstance(constant, CodeType)]
    content = hashlib.blake2b(code.co_code + repr((constants, code.co_names)).encode(), digest_size=4)
    return f"#{content.hexdigest()}"


def _held(function: Any) -> list[Any]:
    """What a function that was made on the way holds: the values of its closure, and its defaults."""
    if "<" not in function.__qualname__:
        return []
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [_plain(value) for value in (*cells, *defaults)]


def _plain(value: Any) -> Any:
    """Numbers, text and tensors as they are described; of anything else the kind, since it may hold anything."""
    if value is None or isinstance(value, str | int | float | bool | Tensor):
        return describe(value)
    if isinstance(value, FunctionType):
        return f"{value.__qualname__}{_body(value)}"
    return describe(type(value))
