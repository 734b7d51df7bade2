"""What the fields of a dataclass may hold, read off their annotations once for all."""

from __future__ import annotations

import math
from dataclasses import Field, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from tombola.errors import TombolaError, unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PLAIN = {int: "a whole number", float: "a finite number", bool: "True or False", str: "a text", NoneType: "None"}
"""The types that are checked, and what their values are called."""


LATER = {"later": True}
"""Marks a field that came later: at its default it is no part of an identity, so that earlier runs keep theirs."""


def is_unsaid(own: Field[Any], value: Any) -> bool:
    """Whether a value is the default of a field that came later."""
    return "later" in own.metadata and isinstance(value, (*PLAIN, tuple)) and value == own.default


def check_fields(own: Any, what: str = "") -> None:
    """TombolaError for a value of a frozen dataclass that its annotation does not allow: where it is given, not late.

    Words are those of a `Literal`. Numbers that NumPy or a tensor holds become Python's, and lists become tuples, since
    settings are compared and written as JSON. Whatever is annotated as neither plain value nor tuple is left alone.
    what: what the dataclass is called in the error; its type's name if nothing.
    """
    what = what or type(own).__name__
    for name, annotation in _checked(type(own)).items():
        value = _plain(getattr(own, name))
        if not _allows(annotation, value):
            raise _refusal(what, name, annotation, value)
        object.__setattr__(own, name, value)


@cache
def _checked(kind: type[DataclassInstance]) -> dict[str, Any]:
    """The annotations of the fields that are plain values, or tuples."""
    try:
        hints = get_type_hints(kind)
    except NameError:  # of a class of the user's, whose annotations name what only its type checker sees
        return {}
    own = {field.name: hints[field.name] for field in fields(kind)}
    return {name: hint for name, hint in own.items() if any(map(_is_checked, _members(hint)))}


def _is_checked(member: Any) -> bool:
    return member in PLAIN or get_origin(member) in (Literal, tuple)


def _members(annotation: Any) -> tuple[Any, ...]:
    """What a value may be, one by one."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _words(annotation: Any) -> list[str]:
    """The words that a value may be."""
    literals = [own for own in _members(annotation) if get_origin(own) is Literal]
    return [word for own in literals for word in get_args(own) if isinstance(word, str)]


def _plain(value: Any) -> Any:
    """The value as Python's own: a number out of NumPy or a tensor without dimensions, a tuple in place of a list."""
    if type(value) in (list, tuple):
        return tuple(map(_plain, value))
    scalar = isinstance(value, np.generic) or (hasattr(value, "item") and getattr(value, "ndim", None) == 0)
    return value.item() if scalar else value


def _allows(annotation: Any, value: Any) -> bool:
    members = _members(annotation)
    if isinstance(value, str) and _words(annotation) and str not in members:
        return value in _words(annotation)
    return any(_is(member, value) for member in members)


def _is(member: Any, value: Any) -> bool:
    """Whether a value is what one member of an annotation says; True where that is no type that is checked."""
    if not _is_checked(member):
        return True
    if get_origin(member) is Literal:
        return value in get_args(member)
    if get_origin(member) is tuple:
        each, *rest = get_args(member)
        return isinstance(value, tuple) and (rest != [...] or all(_allows(each, item) for item in value))
    if member is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if member is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    return isinstance(value, member)


def _refusal(what: str, name: str, annotation: Any, value: Any) -> TombolaError:
    for member in _members(annotation):
        if get_origin(member) is tuple and isinstance(value, tuple):
            annotation = get_args(member)[0]
            value = next((item for item in value if not _allows(annotation, item)), value)
            break
    if isinstance(value, str) and _words(annotation):
        return unknown(f"{what} with {name}", value, _words(annotation))
    return TombolaError(f"the {what}'s {name} is {value!r}; give {_called(annotation)}")


def _called(annotation: Any) -> str:
    """What an annotation allows, in words."""
    said = []
    for member in _members(annotation):
        if get_origin(member) is Literal:
            said += [repr(word) for word in get_args(member)]
        elif get_origin(member) is tuple:
            said.append(f"a tuple, each {_called(get_args(member)[0])}")
        else:
            said.append(PLAIN.get(member) or getattr(member, "__name__", str(member)))
    return " or ".join(said)
