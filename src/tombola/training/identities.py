"""What decides an outcome, as plain JSON: every setting, defaults too, and the code that is not Tombola's own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.registry import version_of
from tombola.tickets import Ticket, digest_of, tensors_of
from tombola.training.data_identity import digest_of_splits
from tombola.training.recipe import Recipe
from tombola.training.source_code import OWN, PLATFORM, is_installed, package_of, source_of
from tombola.training.task import Split, Task, Varied

PLAIN = (str, int, float, bool, type(None))
SPLITS: tuple[Split, ...] = ("train", "test")


def identity(value: Any) -> Any:
    """All that a setting is, as JSON that is the same in every process.

    Tombola's own classes and functions are named by registry name and version, Python's and torch's by their names,
    all others by name and source, with the helpers that they call.

    Examples:
        >>> from tombola.scores import Snip
        >>> identity(Snip(batches=4))
        {'is': 'snip@1', 'batches': 4, 'batch_norm': 'train'}
    """
    return _identity(value, ())


def fingerprint(value: Any) -> str:
    """JSON, or a text, in a few bytes; 1 and 1.0 are one number."""
    text = value if isinstance(value, str) else json.dumps(_with_whole_numbers(value), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _with_whole_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_whole_numbers(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_with_whole_numbers(own) for own in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def task_identity(task: Task, seed: int, recipe: Recipe, precision: str) -> dict[str, Any]:
    """What a task comes to: network, data, what it calls, and how it trains.

    Args:
        task: its network is the one that it builds from `seed`.
        recipe: by which it trains, its precision aside.
        precision: what the recipe's comes to where it trains.
    """
    called = {name: identity(beneath(task, name)) for name in ("forward", "loss", "metric")}
    trained = {name: own for name, own in identity(recipe).items() if name != "precision"}
    known = {"network": network_identity(task.build(seed)), "data": data_digest(task)}
    return known | called | {"recipe": trained, "precision": precision}


def data_digest(task: Task) -> str:
    """The task's own digest of its data; else that of its training and test splits."""
    own = getattr(task, "data_digest", None)
    return digest_of_splits({split: task.batches(split, 0, 0) for split in SPLITS}) if own is None else own


def beneath(task: Any, name: str) -> Any:
    """What a task calls, beneath variations of it that leave this as it is."""
    while isinstance(task, Varied) and getattr(type(task), name) is getattr(Varied, name):
        task = task.task
    return getattr(task, name)


def network_identity(model: nn.Module) -> dict[str, Any]:
    """What a network is: its modules, its values, and the code of the modules that are the user's own."""
    own = {
        name: {**_named(type(module)), **_attributes(module), **_forward(module)}
        for name, module in model.named_modules()
        if not is_installed(type(module)) or "forward" in vars(module)
    }
    known = {"repr": fingerprint(_without_addresses(repr(model))), "values": digest_of(tensors_of(model))}
    return known | ({"code": fingerprint(own)} if own else {})


def _identity(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, PLAIN):
        return value
    if id(value) in above:
        return "itself"
    above = (*above, id(value))
    if isinstance(value, Ticket):
        return {"ticket": value.digest}
    if isinstance(value, Mapping):
        items = value if all(isinstance(key, str) for key in value) else {repr(key): own for key, own in value.items()}
        return {key: _identity(own, above) for key, own in items.items()}
    if isinstance(value, tuple | list):
        return [_identity(own, above) for own in value]
    if isinstance(value, set | frozenset):
        return sorted((_identity(own, above) for own in value), key=json.dumps)
    if isinstance(value, Tensor | np.ndarray):
        return {"is": "tensor", "values": digest_of({"": torch.as_tensor(value)})}
    if isinstance(value, torch.device | torch.dtype | PurePath | torch.Size):
        return str(value)
    if isinstance(value, Enum):
        return {**_named(type(value)), "name": value.name}
    if isinstance(value, partial):
        held = {"arguments": _identity(value.args, above), "settings": _identity(value.keywords, above)}
        return {"is": "partial", "of": _identity(value.func, above), **held}
    if isinstance(value, type | FunctionType | BuiltinFunctionType | MethodType) or hasattr(value, "__wrapped__"):
        return _of_code(value, above)
    return {**_named(type(value)), **_held(value, above)}


def _held(value: Any, above: tuple[int, ...]) -> dict[str, Any]:
    """What an object is set to: every field of a dataclass, else every attribute."""
    if is_dataclass(value):
        return {field.name: _identity(getattr(value, field.name), above) for field in fields(value)}
    if isinstance(value, nn.Module):
        values = digest_of(tensors_of(value))
        return {"repr": _without_addresses(repr(value)), "values": values, **_attributes(value)}
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    held = {**{name: getattr(value, name) for name in slots if hasattr(value, name)}, **getattr(value, "__dict__", {})}
    return {name: _identity(own, above) for name, own in held.items()}


def _of_code(value: Any, above: tuple[int, ...]) -> Any:
    """A class or function: a name, with the source of what is the user's."""
    named = _named(value)
    if package_of(value) == OWN and (cells := getattr(value, "__closure__", None)):
        named |= {"holds": [_identity(cell.cell_contents, above) for cell in cells]}
    if isinstance(value, MethodType) and package_of(value) in (*PLATFORM, OWN):
        named |= {"of": _identity(value.__self__, above)}
    return named["is"] if named.keys() == {"is"} else named


def _named(target: Any) -> dict[str, Any]:
    """By what a class or function is known."""
    name = getattr(target, "__qualname__", type(target).__qualname__)
    if package_of(target) == OWN:
        known = version_of(target)
        return {"is": f"{known[0]}@{known[1]}" if known else f"{OWN}:{name}"}
    module = getattr(target, "__module__", None) or "builtins"
    named = {"is": f"{module}.{name}"}
    return named if package_of(target) in PLATFORM else named | {"source": source_of(target)}


def _attributes(module: nn.Module) -> dict[str, Any]:
    """A module's own numbers and words, which its code may use."""
    kept = {name: own for name, own in vars(module).items() if not name.startswith("_") and name != "training"}
    return {name: own for name, own in kept.items() if isinstance(own, PLAIN)}


def _forward(module: nn.Module) -> dict[str, Any]:
    """A forward that was put on this one module."""
    own = vars(module).get("forward")
    return {} if own is None else {"forward": identity(own)}


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
