"""What decides an outcome, as plain JSON: every setting, defaults too, and the code that is not Tombola's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from tombola.registry import version_of
from tombola.tickets import Ticket, digest_of, tensors_of
from tombola.training.data_identity import digest_of_splits
from tombola.training.object_state import ARRAYS, HOLDING, SAYING, SEQUENCES, array_digest, state_of, without_addresses
from tombola.training.recipe import Recipe
from tombola.training.source_code import OWN, PLATFORM, is_installed, named_callable, package_of, source_of
from tombola.training.task import Split, Task, TaskWrapper

PLAIN = (str, int, float, bool, type(None))
SPLITS: tuple[Split, ...] = ("train", "test")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


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
    called = {name: identity(unwrap(task, name)) for name in ("forward", "loss", "metric")}
    trained = {name: own for name, own in identity(recipe).items() if name != "precision"}
    known = {"network": network_identity(task.build(seed)), "data": data_digest(task)}
    kind = type(_innermost(task))
    if not is_installed(kind) and (batches := getattr(kind, "batches", None)) is not None:
        called["batches"] = source_of(MethodType(batches, kind))  # every epoch's, whatever this task holds
    return known | called | {"recipe": trained, "precision": precision}


def data_digest(task: Task) -> str:
    """The task's own digest of its data; else that of its training and test splits."""
    own = getattr(task, "data_digest", None)
    return digest_of_splits({split: task.batches(split, 0, 0) for split in SPLITS}) if own is None else own


def _innermost(task: Any) -> Any:
    """The task beneath variations of it that leave its batches as they are."""
    while isinstance(task, TaskWrapper) and type(task).batches is TaskWrapper.batches:
        task = task.task
    return task


def unwrap(task: Any, name: str) -> Any:
    """What a task calls, beneath variations of it that leave this as it is."""
    while isinstance(task, TaskWrapper) and getattr(type(task), name) is getattr(TaskWrapper, name):
        task = task.task
    return getattr(task, name)


def network_identity(model: nn.Module) -> dict[str, Any]:
    """What a network is: its modules, its values, and the code of the modules that are the user's own."""
    own = {name: known for name, module in model.named_modules() if (known := _beyond_repr(module))}
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    known = {"repr": fingerprint(without_addresses(repr(model))), "values": digest_of(tensors_of(model))}
    return known | ({"code": fingerprint(own)} if own else {}) | ({"frozen": fingerprint(frozen)} if frozen else {})


def _beyond_repr(module: nn.Module) -> dict[str, Any]:
    """What a module's text may not say: code and settings that are the user's, what torch sets in composed layers."""
    kind = type(module)
    own = {name: _identity(list(vars(module)[name].values()), (id(module),)) for name in HOOKS if vars(module)[name]}
    own |= {"forward": identity(vars(module)["forward"])} if "forward" in vars(module) else {}
    if not is_installed(kind):
        return {**_named(kind), **_attributes(module, (id(module),)), **own}
    composed = kind.__module__.startswith("torch.nn.modules.") and next(module.children(), None) is not None
    return own | (_attributes(module, (id(module),)) if composed else {})


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
        return {_key(key, above): _identity(own, above) for key, own in value.items()}
    if isinstance(value, SEQUENCES):
        return [_identity(own, above) for own in value]
    if isinstance(value, set | frozenset):
        return sorted((_identity(own, above) for own in value), key=json.dumps)
    if isinstance(value, ARRAYS):
        return {"is": "tensor", "values": array_digest(value)}
    if isinstance(value, torch.device | torch.dtype | PurePath | torch.Size):
        return str(value)
    if isinstance(value, SAYING):
        return {"is": type(value).__qualname__, "value": without_addresses(repr(value))}
    if isinstance(value, ModuleType):
        return {"is": "module", "name": value.__name__}
    if isinstance(value, Enum):
        return {**_named(type(value)), "name": value.name}
    if isinstance(value, partial):
        held = {"arguments": _identity(value.args, above), "settings": _identity(value.keywords, above)}
        return {"is": "partial", "of": _identity(value.func, above), **held}
    if isinstance(value, type | FunctionType | MethodType) or hasattr(value, "__wrapped__"):
        return _of_code(value, above)
    if (name := named_callable(value)) is not None:
        return f"{package_of(value)}.{name}" if getattr(value, "__module__", None) is None else _of_code(value, above)
    return {**_named(type(value)), **_held(value, above)}


def _key(key: Any, above: tuple[int, ...]) -> str:
    """A mapping's key as JSON can have it."""
    if isinstance(key, str):
        return key
    return repr(key) if isinstance(key, PLAIN) else json.dumps(_identity(key, above), sort_keys=True)


def _held(value: Any, above: tuple[int, ...]) -> dict[str, Any]:
    """What an object is set to: every field of a dataclass, else every attribute."""
    if isinstance(value, nn.Module) and not is_dataclass(value):
        values = digest_of(tensors_of(value))
        return {"repr": without_addresses(repr(value)), "values": values, **_attributes(value, above)}
    return {name: _identity(own, above) for name, own in state_of(value).items()}


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


def _attributes(module: nn.Module, above: tuple[int, ...]) -> dict[str, Any]:
    """What a module is set to that its code may use: all but what is an object of an installed distribution."""
    kept = {name: own for name, own in vars(module).items() if not name.startswith("_") and name != "training"}
    return {name: _identity(own, above) for name, own in kept.items() if _tells(own)}


def _tells(value: Any) -> bool:
    settings = (*PLAIN, *SEQUENCES, *ARRAYS, *SAYING, *HOLDING, Mapping, set, frozenset, np.generic, partial)
    code = isinstance(value, type | FunctionType | MethodType) or named_callable(value) is not None
    return isinstance(value, settings) or code or not is_installed(type(value)) or is_dataclass(value)
