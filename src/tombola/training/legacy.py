"""Settings as the first version wrote them, read as today's: it left defaults out and named code otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


def upgraded(settings: Any) -> Any:
    """Settings in today's form; what is so already, or cannot be told, stays as it is.

    A setting that the first version left out was at the default of that time, which `legacy.json` holds.
    """
    if isinstance(settings, list):
        return [upgraded(part) for part in settings]
    if isinstance(settings, str):
        return _code(settings)
    if not isinstance(settings, Mapping):
        return settings
    own = {key: upgraded(value) for key, value in settings.items() if key != "type"}
    if "type" not in settings:
        return own
    known = _classes().get(settings["type"])
    return {"type": settings["type"], **own} if known is None else {**known, **own}


def as_first_written(settings: Any) -> Any:
    """Settings of today as the first version wrote them, to find what it kept by their digest."""
    if isinstance(settings, list):
        return [as_first_written(part) for part in settings]
    if not isinstance(settings, Mapping):
        return settings
    names = {own["is"]: name for name, own in _classes().items()}
    if (name := names.get(settings.get("is", ""))) is None:
        return {key: as_first_written(value) for key, value in settings.items()}
    differing = {key: value for key, value in settings.items() if _classes()[name].get(key, ...) != value}
    return {"type": name} | {key: as_first_written(value) for key, value in differing.items()}


def _code(text: str) -> str:
    """A function's name without the fingerprint of its code, where it was torch's or Tombola's own."""
    name, fingerprinted, _ = text.partition("#")
    if not fingerprinted or not name.startswith(("torch.", "tombola.")):
        return text
    return _functions().get(name, name)


@cache
def _read() -> dict[str, Any]:
    return json.loads(files("tombola.training").joinpath("legacy.json").read_text())


def _classes() -> dict[str, dict[str, Any]]:
    return _read()["classes"]


def _functions() -> dict[str, str]:
    return _read()["functions"]
