"""From names to methods and back, and how much a method keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tombola.errors import TombolaError, unknown
from tombola.methods.contract import Method
from tombola.methods.presets import METHODS
from tombola.structure import COUNTED, Granularity, granularity_of


def method(name: str, **settings: Any) -> Method:
    """The method of this name, with settings replaced.

    Examples:
        >>> method("snip", density=0.05).density
        0.05
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return replace(METHODS[name].method, **settings)  # ty: ignore[invalid-argument-type]


def name_of(own: Method) -> str:
    """The name of the preset that a method is, however much it keeps; else its type's name."""
    for name, preset in METHODS.items():
        if type(preset.method) is type(own) and _as_large_as(own, preset.method) == own:
            return name
    return type(own).__name__


def _as_large_as(own: Method, preset: Method) -> Method:
    """The preset, keeping as much as the method does."""
    if isinstance(preset.granularity, COUNTED) and isinstance(own.granularity, COUNTED):
        preset = removing(preset, own.granularity.remove)
    return replace(preset, density=own.density)  # ty: ignore[invalid-argument-type]


def blocks_removed(own: Method) -> int | None:
    """For how many blocks a method's units go; None where it keeps a density."""
    return own.granularity.remove if isinstance(own.granularity, COUNTED) else None


def removing(own: Method, blocks: int | None) -> Method:
    """A method of whole blocks, which removes so many; TombolaError if its units are others."""
    if not isinstance(own.granularity, COUNTED):
        raise TombolaError(f"'{name_of(own)}' keeps a share of its {own.granularity.name}s; give a density instead")
    return replace(own, granularity=replace(own.granularity, remove=blocks))  # ty: ignore[invalid-argument-type]


def granularity_used(settings: Mapping[str, Any]) -> Granularity | None:
    """The granularity of the method that these settings, from a ticket's provenance, describe; None if unknown."""
    if "granularity" in settings:
        return granularity_of(settings["granularity"])
    defaults = {type(preset.method).__name__: type(preset.method)().granularity for preset in METHODS.values()}
    return defaults.get(settings.get("type", ""))
