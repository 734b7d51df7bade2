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

    Examples:
        >>> method("snip", density=0.05).density
        0.05
    """
    return replace(METHODS[name], **settings)


def label_of(own: Method) -> str:
    """What a method is called: the preset that it is nearest to, however much it keeps, and what differs from it.

    Examples:
        >>> from tombola.methods import OneShot
        >>> from tombola.scores import SynFlow
        >>> label_of(OneShot(density=0.02, floor=1)), label_of(OneShot(score=SynFlow(), rounds=5))
        ('snip(floor=1)', 'synflow(rounds=5)')
    """
    differing = {name: list(_differences(own, preset)) for name, preset in _bases(own).items()}
    name = min(differing, key=lambda base: (len(differing[base]), _settings(base)))
    return f"{name}({', '.join(differing[name])})" if differing[name] else name


def _settings(name: str) -> int:
    """How many settings of its own a preset has; of two that are as near, the plainer one gives its name."""
    return len(METHODS.entries[name].settings) if name in METHODS else 0


def _bases(own: Method) -> dict[str, Any]:
    """The presets of a method's class, and where its score is no preset's, the class with that score."""
    kind = type(own)
    where = f"{kind.__module__}:{kind.__qualname__}"
    bases = {name: METHODS[name] for name, entry in METHODS.entries.items() if entry.where == where}
    if type(own) is OneShot and all(type(preset.score) is not type(own.score) for preset in bases.values()):
        plain = copy(OneShot())
        object.__setattr__(plain, "score", own.score)  # not replace, since weights need not go with this score
        return {_word(own.score): plain}
    return bases or {kind.__name__: _at_defaults(own)}


def _at_defaults(own: Any) -> Any:
    """The same object with every field that has a default at it."""
    if not is_dataclass(own):
        return own
    defaults = {
        field.name: field.default_factory() if field.default_factory is not MISSING else field.default
        for field in fields(own)
        if field.init and (field.default is not MISSING or field.default_factory is not MISSING)
    }
    try:
        return replace(own, **defaults)
    except TombolaError:
        return own


def _differences(own: Any, base: Any, above: str = "") -> Iterator[str]:
    """What an object is set to otherwise than another of its class, as `name=value`."""
    for field in fields(own) if is_dataclass(own) else ():
        mine, theirs = getattr(own, field.name), getattr(base, field.name)
        if field.name in AMOUNTS or mine is theirs or mine == theirs:
            continue
        if is_dataclass(mine) and type(mine) is type(theirs):
            nested = list(_differences(mine, theirs, f"{above}{field.name}."))
            if not isinstance(mine, COUNTED) or nested:
                yield from nested
            continue
        yield f"{above}{field.name}={_word(mine)}"


def _word(value: Any) -> str:
    """A setting in a label."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return "+".join(map(_word, value)) or "none"
    if isinstance(value, str | int | None):
        return str(value)
    kind = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    where = f"{kind.__module__}:{kind.__qualname__}"
    known = [name for name, entry in SCORES.entries.items() if entry.where == where]
    name = known[0] if known else getattr(value, "name", "") or getattr(value, "__name__", "") or kind.__name__
    if known and is_dataclass(value) and (differing := list(_differences(value, _at_defaults(value)))):
        return f"{name}({', '.join(differing)})"
    return name


def blocks_removed(own: Method) -> int | None:
    """For how many blocks a method's units go; None where it keeps a density."""
    return own.granularity.remove if isinstance(own.granularity, COUNTED) else None


def removing(own: Method, blocks: int | None) -> Method:
    """A method of whole blocks, which removes so many; TombolaError if its units are others."""
    if not isinstance(own.granularity, COUNTED):
        raise TombolaError(f"'{label_of(own)}' keeps a share of its {own.granularity.name}s; give a density instead")
    return replace(own, granularity=replace(own.granularity, remove=blocks))  # ty: ignore[invalid-argument-type]


def granularity_used(settings: Mapping[str, Any]) -> Granularity | None:
    """The granularity of the method that these settings, from a ticket's provenance, describe; None if unknown."""
    described = upgraded(settings).get("granularity")
    return granularity_of(described) if described else None
