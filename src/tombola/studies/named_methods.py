"""Methods by name, at the sizes and with the settings that somebody typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

import msgspec

from tombola.errors import TombolaError, unknown
from tombola.methods import Method, OneShot, blocks_removed, label_of, removing
from tombola.registry import METHODS, SCORES, imported
from tombola.structure import granularity


def method_named(word: str) -> Method:
    """The method that a word names.

    Args:
        word: a method's name in the registry; a score's name, for the method that scores the untrained network with
            it; or the user's own method or score as `module:name`.

    Raises:
        TombolaError: there is no such method, or the user's object is neither a method nor a score.

    Examples:
        >>> method_named("snip").density
        0.1
    """
    if word in METHODS:
        return METHODS[word]
    if word in SCORES:
        return OneShot(score=SCORES[word])
    if ":" not in word:
        raise unknown("method", word, METHODS)
    subject = imported(word, "the method or score")
    subject = subject() if isinstance(subject, type) else subject
    if hasattr(subject, "find"):
        if not is_dataclass(subject):
            raise TombolaError(f"the method '{word}' is no dataclass; put @dataclass(frozen=True) before its class")
        return subject
    if callable(subject):
        return OneShot(score=subject)
    raise TombolaError(
        f"'{word}' is a {type(subject).__name__}; name a score (a function) or a method (an object with `find`)"
    )


def check_density(density: float) -> None:
    """TombolaError for a density out of its range, before a folder is made for it."""
    if not 0 < density <= 1:
        raise TombolaError(f"density is {density}; give the share of units to keep, above 0 and at most 1")


def at_size(method: Method, density: float | None, remove: int | None) -> Method:
    """The method at another size of ticket; the method itself if no size is given.

    Args:
        method: whose size is replaced.
        density: the share of units to keep, above 0 and at most 1.
        remove: the number of blocks to remove, for a method that removes whole blocks. It takes precedence.

    Raises:
        TombolaError: the density is out of its range, or the method counts blocks.

    Examples:
        >>> at_size(METHODS["snip"], 0.05, None).density
        0.05
    """
    if remove is not None:
        return removing(method, remove)
    if density is None:
        return method
    if blocks_removed(method) is not None:
        raise TombolaError(
            f"'{label_of(method)}' removes whole blocks; give their number, as --remove 3, instead of a density"
        )
    check_density(density)
    return replace(method, density=density)  # ty: ignore[invalid-argument-type]


def at_sizes(method: Method, densities: Sequence[float], remove: Sequence[int]) -> list[Method]:
    """The method at each density, or with each number of blocks removed if it removes whole blocks."""
    if blocks_removed(method) is not None:
        return [at_size(method, None, count) for count in remove]
    return [at_size(method, density, None) for density in densities]


def with_values(method: Method, values: Mapping[str, Any]) -> Method:
    """The method with other settings, as a file of JSON or TOML holds them.

    Args:
        method: whose settings are replaced.
        values: plain values by the setting's name; `include` and `exclude` are patterns of what may lose weights, a
            granularity and a score are named, and settings of settings are a table.

    Raises:
        TombolaError: the method has no such setting, or not with such a value.

    Examples:
        >>> with_values(METHODS["imp"], {"count": 3}).count
        3
    """
    known = {field.name: getattr(method, field.name) for field in fields(method)}  # ty: ignore[invalid-argument-type]
    changed: dict[str, Any] = {}
    for typed, value in values.items():
        name = typed.replace("-", "_")
        if name in ("include", "exclude") and "prunable" in known:
            prunable = changed.get("prunable", known["prunable"])
            patterns = (value,) if isinstance(value, str) else value
            if not isinstance(patterns, list | tuple) or not all(isinstance(own, str) for own in patterns):
                raise TombolaError(f"{typed} is {value!r}; give patterns of names, as ['conv*']")
            changed["prunable"] = replace(prunable, **{name: tuple(patterns)})
        elif name not in known or name in ("density", "prunable"):
            names = [own for own in known if own not in ("density", "prunable")]
            raise unknown(f"setting of {label_of(method)}", typed, [*names, "include", "exclude"])
        else:
            changed[name] = _setting(name, known[name], value)
    try:
        return replace(method, **changed)  # ty: ignore[invalid-argument-type]
    except TypeError as error:
        raise TombolaError(f"{label_of(method)} has no such settings: {error}") from error


def _setting(name: str, usual: Any, value: Any) -> Any:
    """A setting's value from a plain one, in the form that its usual value has."""
    if name == "granularity":
        if not isinstance(value, str):
            raise TombolaError(f"the granularity is {value!r}; give its name, as 'channel'")
        return granularity(value)
    if name == "score" and isinstance(value, str):
        return SCORES[value] if ":" not in value else imported(value, "the score")
    if is_dataclass(usual) and isinstance(value, Mapping):
        try:
            return msgspec.convert({**asdict(usual), **value}, type(usual))
        except msgspec.ValidationError as error:
            raise TombolaError(f"the setting {name} does not fit: {error}") from error
    return tuple(value) if isinstance(value, list) else value
