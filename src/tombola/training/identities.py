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
from tombola.training.adversarial_task import adversary_of
from tombola.training.data_identity import digest_of_splits
from tombola.training.object_state import ARRAYS, HOLDING, SAYING, SEQUENCES, array_digest, state_of, without_addresses
from tombola.training.own_optimizer import own
from tombola.training.recipe import Recipe
from tombola.training.source_code import OWN, PLATFORM, is_installed, named_callable, package_of, source_of
from tombola.training.task import Split, Task, TaskWrapper, unwrap

PLAIN = (str, int, float, bool, type(None))
SPLITS: tuple[Split, ...] = ("train", "test")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def identity(value: Any) -> Any:
    """Describe a setting in full, as JSON that is the same in every process.

    Tombola's own classes and functions appear by registry name and version, those of Python, torch and NumPy by name,
    all others by name and a fingerprint of their source, the helpers that they call included.

    Args:
        value: anything that a method, score, task or recipe is set to.

    Returns:
        JSON values: dictionaries, lists, texts, numbers, booleans and None.

    Examples:
        >>> from tombola.scores import Snip
        >>> identity(Snip(batches=4))
        {'is': 'snip@1', 'batches': 4, 'batch_norm': 'train'}
    """
    return _identity(value, ())


def fingerprint(value: Any) -> str:
    """Hash JSON values or a text to 16 hexadecimal digits; 1 and 1.0 are one number.

    Examples:
        >>> fingerprint({"lr": 1, "batch": 2}) == fingerprint({"batch": 2, "lr": 1.0})
        True
    """
    text = value if isinstance(value, str) else json.dumps(_with_whole_numbers(value), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _with_whole_numbers(value: Any) -> Any:
    kind = type(value)
    if kind is float:
        return int(value) if value.is_integer() else value
    if kind is str or kind is int or kind is bool or value is None:  # most values: not asked whether they are mappings
        return value
    if isinstance(value, Mapping):
        return {key: _with_whole_numbers(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_whole_numbers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def task_identity(task: Task, seed: int, recipe: Recipe, precision: str) -> dict[str, Any]:
    """Describe a task: its network, its data, the functions that it calls, and how it trains.

    Args:
        task: the task.
        seed: of the network that the task builds.
        recipe: how the network trains; its precision is left out in favour of `precision`.
        precision: the resolved one, "float32" or "bf16".

    Returns:
        The parts of the description by name, as JSON.
    """
    functions = {name: identity(function) for name, function in functions_of(task).items()}
    settings = {name: value for name, value in identity(recipe).items() if name != "precision"}
    content = {"network": network_identity(task.build(seed)), "data": data_digest(task)}
    kind = type(_innermost(task))
    if not is_installed(kind) and (batches := getattr(kind, "batches", None)) is not None:
        # The data's digest reads the first epoch alone, and only this code says what later epochs hold. It is read as
        # the class's: the attributes of the task itself are data, or are described already.
        functions["batches"] = source_of(MethodType(batches, kind))
    adversary = adversary_of(task)
    content |= {} if adversary is None else {"adversary": identity(adversary)}
    return content | functions | {"recipe": settings, "precision": precision}


def data_digest(task: Task) -> str:
    """The task's own `data_digest`, if it has one; else the digest of its training and test splits."""
    digest = getattr(task, "data_digest", None)
    return digest_of_splits({split: task.batches(split, 0, 0) for split in SPLITS}) if digest is None else digest


def _innermost(task: Any) -> Any:
    """The task inside all wrappers that leave its batches as they are."""
    while isinstance(task, TaskWrapper) and type(task).batches is TaskWrapper.batches:
        task = task.task
    return task


def functions_of(task: Task) -> dict[str, Any]:
    """The functions that a task calls, by their names; those of an optimizer and a scheduler if it has its own."""
    factories = [name for name in ("optimizer", "scheduler") if own(task, name) is not None]
    return {name: unwrap(task, name) for name in ("forward", "loss", "metric", *factories)}


def network_identity(model: nn.Module) -> dict[str, Any]:
    """Describe a network: its modules, its values, and the code of the modules that are the user's own.

    Args:
        model: the network.

    Returns:
        Fingerprints by name: "repr", "values", and where there are any "code" and "frozen" parameters.
    """
    code = {name: parts for name, module in model.named_modules() if (parts := _beyond_repr(module))}
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    content = {"repr": fingerprint(without_addresses(repr(model))), "values": digest_of(tensors_of(model))}
    return content | ({"code": fingerprint(code)} if code else {}) | ({"frozen": fingerprint(frozen)} if frozen else {})


def _beyond_repr(module: nn.Module) -> dict[str, Any]:
    """What a module's repr may leave out: hooks, the user's code and settings, and the settings of composed layers."""
    kind, above = type(module), (id(module),)
    parts = {name: _identity(list(hooks.values()), above) for name in HOOKS if (hooks := vars(module)[name])}
    if "forward" in vars(module):  # put on this very object, in place of its class's
        parts["forward"] = identity(vars(module)["forward"])
    if not is_installed(kind):
        return {**_named(kind), **_attributes(module, above), **parts}
    # torch's composed layers, as the Transformer's, show their children in their repr and not their own settings.
    composed = kind.__module__.startswith("torch.nn.modules.") and next(module.children(), None) is not None
    return parts | (_attributes(module, above) if composed else {})


def _identity(value: Any, above: tuple[int, ...]) -> Any:
    """Describe a value; above: the ids of the objects that it lies in, so that a circle ends."""
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
        return {_key(key, above): _identity(part, above) for key, part in value.items()}
    if isinstance(value, SEQUENCES):
        return [_identity(part, above) for part in value]
    if isinstance(value, set | frozenset):  # their own order changes with the hash seed
        return sorted((_identity(part, above) for part in value), key=json.dumps)
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
        bound = {"arguments": _identity(value.args, above), "settings": _identity(value.keywords, above)}
        return {"is": "partial", "of": _identity(value.func, above), **bound}
    if isinstance(value, type | FunctionType | MethodType) or hasattr(value, "__wrapped__"):
        return _definition(value, above)
    if (name := named_callable(value)) is not None:
        # NumPy's ufuncs and torch's builtins may have no module; their package is all that is known.
        return (
            f"{package_of(value)}.{name}" if getattr(value, "__module__", None) is None else _definition(value, above)
        )
    return {**_named(type(value)), **_settings(value, above)}


def _key(key: Any, above: tuple[int, ...]) -> str:
    """A mapping's key as a text, since JSON has no others."""
    if isinstance(key, str):
        return key
    return repr(key) if isinstance(key, PLAIN) else json.dumps(_identity(key, above), sort_keys=True)


def _settings(value: Any, above: tuple[int, ...]) -> dict[str, Any]:
    """What an object is set to: every field of a dataclass, else every attribute."""
    if isinstance(value, nn.Module) and not is_dataclass(value):
        values = digest_of(tensors_of(value))
        return {"repr": without_addresses(repr(value)), "values": values, **_attributes(value, above)}
    return {name: _identity(part, above) for name, part in state_of(value).items()}


def _definition(value: Any, above: tuple[int, ...]) -> Any:
    """A class or function by its name, and by its source if it is the user's."""
    named = _named(value)
    # The source of the user's own code is read with its closure and its object; a name alone leaves these out.
    if package_of(value) == OWN and (cells := getattr(value, "__closure__", None)):
        named |= {"holds": [_identity(cell.cell_contents, above) for cell in cells]}
    if isinstance(value, MethodType) and package_of(value) in (*PLATFORM, OWN):
        named |= {"of": _identity(value.__self__, above)}
    return named["is"] if named.keys() == {"is"} else named


def _named(target: Any) -> dict[str, Any]:
    """The name that identifies a class or function, with a fingerprint of its source if it is the user's."""
    name = getattr(target, "__qualname__", type(target).__qualname__)
    if package_of(target) == OWN:
        registered = version_of(target)
        return {"is": f"{registered[0]}@{registered[1]}" if registered else f"{OWN}:{name}"}
    module = getattr(target, "__module__", None) or "builtins"
    named = {"is": f"{module}.{name}"}
    return named if package_of(target) in PLATFORM else named | {"source": source_of(target)}


def _attributes(module: nn.Module, above: tuple[int, ...]) -> dict[str, Any]:
    """A module's public attributes that its code may use, without objects of installed distributions."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    return {name: _identity(value, above) for name, value in public.items() if _is_setting(value)}


def _is_setting(value: Any) -> bool:
    settings = (*PLAIN, *SEQUENCES, *ARRAYS, *SAYING, *HOLDING, Mapping, set, frozenset, np.generic, partial)
    code = isinstance(value, type | FunctionType | MethodType) or named_callable(value) is not None
    return isinstance(value, settings) or code or not is_installed(type(value)) or is_dataclass(value)
