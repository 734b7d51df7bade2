"""From names to methods and back, and how much a method keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any

from tombola.errors import TombolaError
from tombola.methods.one_shot import OneShot
from tombola.methods.protocol import Method
from tombola.registry import METHODS, SCORES
from tombola.structure import COUNTED, Granularity, granularity_of
from tombola.training import upgraded

AMOUNTS = ("density", "remove")
"""Settings that say how much stays, and so belong to no name."""


def method(name: str, **settings: Any) -> Method:
    """The method of this name, with settings replaced.

    Args:
        name: of the registry; `tombola methods` lists them.
        settings: fields of the method's dataclass, as density=0.05.

    Raises:
        TombolaError: if no method has this name, or a setting is out of range.

    Examples:
        >>> method("snip", density=0.05).density
        0.05
    """
    return replace(METHODS[name], **settings)


def label_of(method: Method) -> str:
    """What a method is called: the nearest preset's name, and what differs from it other than how much is kept.

    Examples:
        >>> from tombola.methods import OneShot
        >>> from tombola.scores import SynFlow
        >>> label_of(OneShot(density=0.02, floor=1)), label_of(OneShot(score=SynFlow(), rounds=5))
        ('snip(floor=1)', 'synflow(rounds=5)')
    """
    differing = {name: list(_differences(method, preset)) for name, preset in _bases(method).items()}
    name = min(differing, key=lambda preset: (len(differing[preset]), _settings_count(preset)))
    return f"{name}({', '.join(differing[name])})" if differing[name] else name


def _settings_count(name: str) -> int:
    """How many settings of its own a preset has; of two that are equally near, the plainer one gives its name."""
    return len(METHODS.entries[name].settings) if name in METHODS else 0


def _bases(method: Method) -> dict[str, Any]:
    """The presets of a method's class; where none has its score, the class itself with that score."""
    kind = type(method)
    where = f"{kind.__module__}:{kind.__qualname__}"
    bases = {name: METHODS[name] for name, entry in METHODS.entries.items() if entry.where == where}
    if type(method) is OneShot and all(type(preset.score) is not type(method.score) for preset in bases.values()):
        plain = copy(OneShot())
        object.__setattr__(plain, "score", method.score)  # replace() would refuse a score of other units.
        return {_in_label(method.score): plain}
    return bases or {kind.__name__: _at_defaults(method)}


def _at_defaults(settings: Any) -> Any:
    """The same object with every field that has a default at it."""
    if not is_dataclass(settings):
        return settings
    defaults = {
        field.name: field.default_factory() if field.default_factory is not MISSING else field.default
        for field in fields(settings)
        if field.init and (field.default is not MISSING or field.default_factory is not MISSING)
    }
    try:
        return replace(settings, **defaults)
    except TombolaError:
        return settings


def _differences(settings: Any, base: Any, above: str = "") -> Iterator[str]:
    """The settings in which an object differs from another of its class, as `name=value`."""
    for field in fields(settings) if is_dataclass(settings) else ():
        value, base_value = getattr(settings, field.name), getattr(base, field.name)
        if field.name in AMOUNTS or value is base_value or value == base_value:
            continue
        if is_dataclass(value) and type(value) is type(base_value):
            nested = list(_differences(value, base_value, f"{above}{field.name}."))
            if not isinstance(value, COUNTED) or nested:
                yield from nested
            continue
        yield f"{above}{field.name}={_in_label(value)}"


def _in_label(value: Any) -> str:
    """A setting in a label."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return "+".join(map(_in_label, value)) or "none"
    if isinstance(value, str | int | None):
        return str(value)
    kind = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    where = f"{kind.__module__}:{kind.__qualname__}"
    names = [name for name, entry in SCORES.entries.items() if entry.where == where]
    name = names[0] if names else getattr(value, "name", "") or getattr(value, "__name__", "") or kind.__name__
    if names and is_dataclass(value) and (differing := list(_differences(value, _at_defaults(value)))):
        return f"{name}({', '.join(differing)})"
    return name


def blocks_removed(method: Method) -> int | None:
    """How many blocks a method removes; None if it keeps a density."""
    return method.granularity.remove if isinstance(method.granularity, COUNTED) else None


def removing(method: Method, blocks: int | None) -> Method:
    """The method, removing this many blocks.

    Raises:
        TombolaError: if its units are not whole blocks.
    """
    if not isinstance(method.granularity, COUNTED):
        raise TombolaError(
            f"'{label_of(method)}' keeps a share of its {method.granularity.name}s; give a density instead"
        )
    return replace(method, granularity=replace(method.granularity, remove=blocks))  # ty: ignore[invalid-argument-type]


def granularity_used(settings: Mapping[str, Any]) -> Granularity | None:
    """The granularity of the method that a ticket's provenance describes by these settings; None if it is unknown."""
    description = upgraded(settings).get("granularity")
    return granularity_of(description) if description else None
