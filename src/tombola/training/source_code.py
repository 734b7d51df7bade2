"""Fingerprints of code: of its syntax and that of the helpers it calls.

Comments, docstrings, annotations and layout do not count. The same source gives the same bytes in a module, a notebook
and under every version of Python and every hash seed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import nn

from tombola.registry import version_of
from tombola.tickets import digest_of, tensors_of
from tombola.training.object_state import ARRAYS, SAYING, SEQUENCES, array_digest, state_of, without_addresses
from tombola.training.syntax import globals_in, imports_in, names_in, syntax_of

PLAIN = (str, bytes, int, float, complex, bool, type(None))
PLATFORM = frozenset({"torch", "numpy", *sys.stdlib_module_names}) - {"__main__"}
"""Packages whose code is identified by names alone, and never read."""
OWN = "tombola"
GENERATED = "<string>"
"""The file name in the code of methods that a dataclass generates."""
INSTALLED = ("site-packages", "dist-packages")
"""Folders of installed distributions."""


def package_of(target: Any) -> str:
    """The top package that a function, class or module belongs to; "builtins" if it has no module."""
    name = target.__name__ if isinstance(target, ModuleType) else getattr(target, "__module__", None)
    return (name or "builtins").partition(".")[0]


def is_installed(target: Any) -> bool:
    """Whether a function, class or module belongs to Python, Tombola or an installed distribution.

    All other code is the user's own.
    """
    package = package_of(target)
    if package in PLATFORM or package == OWN:
        return True
    name = target.__name__ if isinstance(target, ModuleType) else getattr(target, "__module__", None)
    file = getattr(sys.modules.get(name or ""), "__file__", None) or ""
    return any(part in file for part in INSTALLED)


def source_of(target: Any) -> str:
    """A fingerprint of the user's code, with the helpers and constants that it uses.

    Args:
        target: a function, method, class or object.

    Returns:
        16 hexadecimal digits, the same in every process that reads this source.

    Examples:
        >>> source_of(lambda x: x + 1) == source_of(lambda x: x + 2)
        False
    """
    walk = _Walk(package_of(target))
    walk.add(target)
    content = hashlib.blake2b(digest_size=8)
    for part in walk.parts:
        content.update(part.encode())
    return content.hexdigest()


class _Walk:
    """Follows code to its helpers, each once, and collects the texts that the fingerprint is made of.

    package: the top package where the walk began, which is read even if it is installed.
    """

    def __init__(self, package: str, seen: Iterable[int] = ()) -> None:
        self.parts: list[str] = []
        self._package = package
        self._seen = set(seen)
        self._alive: list[Any] = []

    def add(self, target: Any, owner: Any = None) -> None:
        """Add a function, class or object; owner: the object or class that a method's `self` stands for."""
        if isinstance(target, MethodType):
            return self.add(target.__func__, target.__self__)
        if not self._is_new(target):
            return None
        if (wrapped := _wrapped(target)) is not None:
            self.add(wrapped, owner)
        if isinstance(target, FunctionType):
            self._function(target, owner)
        elif isinstance(target, type):
            self._class(target)
        elif wrapped is None:
            self._object(target)
        return None

    def _is_new(self, value: Any) -> bool:
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        self._alive.append(value)  # or a later object could get the id of this one
        return True

    def _object(self, value: Any) -> None:
        """Add an object that code refers to: its class and its state."""
        self.parts.append(f"object {type(value).__qualname__}")
        if self._follows(type(value)):
            self.add(type(value))
        elif isinstance(value, nn.Module):
            self.parts += [without_addresses(repr(value)), digest_of(tensors_of(value))]
        elif package_of(type(value)) == OWN:
            self.parts.append(str(version_of(type(value))))
        for name, part in sorted(state_of(value).items()):
            self.parts.append(f"attribute {name}")
            self._value(part)

    def _follows(self, target: Any) -> bool:
        """Whether a helper is read too: the user's own code, and that of the package where the walk began."""
        if package_of(target) in PLATFORM or package_of(target) == OWN:
            return False
        return package_of(target) == self._package or not is_installed(target)

    def _function(self, function: FunctionType, owner: Any) -> None:
        """Add a function: its syntax, closure, defaults, and what it looks up when it runs."""
        if not self._follows_home(function):
            self.parts.append(f"name {function.__qualname__}")
            return
        self.parts.append(f"function {function.__qualname__} {syntax_of(function.__code__)}")
        for cell in function.__closure__ or ():
            self._value(_cell_content(cell))
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._value(default)
        names = sorted(names_in(function.__code__))
        used = [function.__globals__[name] for name in globals_in(function.__code__) if name in function.__globals__]
        for value in (*used, *self._imported(function)):
            if isinstance(value, ModuleType):
                self._members(value, names, set())
            else:
                self._value(value)
        if owner is not None and not isinstance(owner, ModuleType):
            self._attributes(owner, names)

    def _follows_home(self, function: FunctionType) -> bool:
        """Whether the file in which a function is written is read.

        Its globals name that file. A wrapper's `__module__` does not: functools.wraps copies it from the wrapped one.
        """
        home = sys.modules.get(function.__globals__.get("__name__") or "")
        return home is None or package_of(home) == self._package or not is_installed(home)

    def _members(self, module: ModuleType, names: list[str], above: set[str]) -> None:
        """Add what code that looks up these names may use of a module, and of modules inside it.

        above: modules that this one was reached through, so that a circle ends.
        """
        if not self._follows(module) or module.__name__ in above:
            return
        for name in names:
            value = vars(module).get(name)
            if isinstance(value, ModuleType):
                self._members(value, names, {*above, module.__name__})
            elif name in vars(module):
                self._value(value)

    def _imported(self, function: FunctionType) -> Iterator[Any]:
        """Modules that a function imports when it runs, if they are read too."""
        package = function.__globals__.get("__package__") or ""
        for name, level, wanted in imports_in(function.__code__):
            if level and not package:
                continue
            path = importlib.util.resolve_name("." * level + name, package) if level else name
            if (module := self._module(path)) is None:
                continue
            yield module
            for part in wanted:  # `from package import part` may name a module that nobody has imported yet
                if not hasattr(module, part) and (inner := self._module(f"{path}.{part}")) is not None:
                    yield inner

    def _module(self, name: str) -> ModuleType | None:
        """A module by its name; None if it is not read, or cannot be imported."""
        top = name.partition(".")[0]
        if top in PLATFORM or top == OWN:
            return None
        try:
            spec = importlib.util.find_spec(top)
            installed = any(part in (spec.origin or "") for part in INSTALLED) if spec is not None else True
            return importlib.import_module(name) if top == self._package or not installed else None
        except Exception:  # the user's module runs code when it is imported, and that may raise anything
            return None

    def _attributes(self, owner: Any, names: list[str]) -> None:
        """Add the attributes of its object or class that a method's code looks up."""
        kind = owner if isinstance(owner, type) else type(owner)
        for name in names:
            if name in getattr(owner, "__dict__", {}) and not isinstance(owner, type):
                self._value(owner.__dict__[name])
            elif (attribute := getattr(kind, name, None)) is not None and self._follows(kind):
                attribute = attribute.fget if isinstance(attribute, property) else attribute
                if isinstance(attribute, FunctionType | MethodType):
                    self.add(getattr(attribute, "__func__", attribute), owner)
                else:
                    self._value(attribute)

    def _class(self, kind: type) -> None:
        """Add a class: the methods and attributes of itself and of its bases that are read."""
        self.parts.append(f"class {kind.__qualname__}")
        for base in (base for base in kind.__mro__ if self._follows(base)):
            for name, value in sorted(vars(base).items()):
                value = getattr(value, "__func__", value)
                value = value.fget if isinstance(value, property) else getattr(value, "func", value)  # cached_property
                if isinstance(value, FunctionType):
                    if not _is_generated(inspect.unwrap(value), base):
                        self.add(value)
                elif not name.startswith("__"):
                    self._value(value)

    def _value(self, value: Any) -> None:
        """Add a helper or constant that code refers to; installed ones by name, modules not at all."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, (*PLAIN, *SAYING)):
            self.parts.append(without_addresses(repr(value)))
        elif isinstance(value, ARRAYS):
            self.parts.append(array_digest(value))
        elif isinstance(value, (Mapping, set, frozenset, *SEQUENCES)):
            self._data(value)
        elif isinstance(value, FunctionType | MethodType | type) or _wrapped(value) is not None:
            if self._follows(value):
                self.add(value)
            else:
                self.parts.append(
                    f"name {getattr(value, '__qualname__', type(value).__qualname__)} {version_of(value)}"
                )
        elif (name := named_callable(value)) is not None:
            self.parts.append(f"name {name}")
        elif not isinstance(value, ModuleType) and not callable(getattr(value, "__get__", None)):
            self.add(value)

    def _data(self, value: Any) -> None:
        """Add what a container holds; a set in the order of its elements' texts, since its own order is random."""
        if not self._is_new(value):
            return
        self.parts.append(type(value).__name__)
        if isinstance(value, set | frozenset):
            self.parts += sorted(map(self._text_of, value))
            return
        for part in value.items() if isinstance(value, Mapping) else value:
            self._value(part)

    def _text_of(self, value: Any) -> str:
        """The text of one value, which does not depend on the values beside it."""
        walk = _Walk(self._package, self._seen)
        walk._value(value)
        return "".join(walk.parts)


def named_callable(value: Any) -> str | None:
    """The name of a callable that is not written in Python, as torch.relu or np.exp; None for all else."""
    if isinstance(value, BuiltinFunctionType):
        return value.__qualname__
    if package_of(type(value)) in ("torch", "numpy") and callable(value) and not isinstance(value, nn.Module):
        name = getattr(value, "__name__", None)
        return name if isinstance(name, str) else None
    return None


def _wrapped(target: Any) -> Any:
    """The function inside a decorated one; None if there is none."""
    try:  # statically, since an object with `__getattr__` may answer to every name
        return inspect.getattr_static(target, "__wrapped__")
    except AttributeError:
        return None


GENERATED_METHODS = frozenset(
    {"__init__", "__repr__", "__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__setattr__", "__delattr__"}
)


def _is_generated(function: Any, kind: type) -> bool:
    """Whether a dataclass generated this method, which then follows from the fields."""
    file = function.__code__.co_filename
    generated = file == GENERATED and function.__name__ in GENERATED_METHODS and "__dataclass_fields__" in vars(kind)
    return file == dataclasses.__file__ or generated


def _cell_content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None
