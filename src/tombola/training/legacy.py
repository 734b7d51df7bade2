"""Settings of the first version, which left defaults out and named code in other ways, and those of today."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


def upgraded(settings: Any) -> Any:
    """Bring settings that the first version wrote into today's form.

    A setting that the first version left out had the default of that time, which `legacy.json` holds.

    Args:
        settings: JSON of either version.

    Returns:
        JSON of today's; parts that have that form already, or are not known, stay as they are.

    Examples:
        >>> upgraded({"type": "Snip", "batches": 4})
        {'is': 'snip@1', 'batches': 4, 'batch_norm': 'train'}
    """
    if isinstance(settings, list):
        return [upgraded(part) for part in settings]
    if isinstance(settings, str):
        return _function_name(settings)
    if not isinstance(settings, Mapping):
        return settings
    fields = {key: upgraded(value) for key, value in settings.items() if key != "type"}
    if "type" not in settings:
        return fields
    defaults = _classes().get(settings["type"])
    return {"type": settings["type"], **fields} if defaults is None else {**defaults, **fields}


def as_first_written(settings: Any) -> Any:
    """Bring settings of today into the first version's form, whose digests name the folders that it made.

    Args:
        settings: JSON of today's.

    Examples:
        >>> as_first_written({"is": "snip@1", "batches": 4, "batch_norm": "train"})
        {'type': 'Snip', 'batches': 4}
    """
    if isinstance(settings, list):
        return [as_first_written(part) for part in settings]
    if not isinstance(settings, Mapping):
        return settings
    names = {defaults["is"]: name for name, defaults in _classes().items()}
    if (name := names.get(settings.get("is", ""))) is None:
        return {key: as_first_written(value) for key, value in settings.items()}
    differing = {key: value for key, value in settings.items() if _classes()[name].get(key, ...) != value}
    return {"type": name} | {key: as_first_written(value) for key, value in differing.items()}


def _function_name(text: str) -> str:
    """Today's name of a function of torch or Tombola, of which the first version wrote `name#fingerprint`."""
    name, mark, _ = text.partition("#")
    if not mark or not name.startswith(("torch.", "tombola.")):
        return text
    return _functions().get(name, name)


@cache
def _read() -> dict[str, Any]:
    return json.loads(files("tombola.training").joinpath("legacy.json").read_text())


def _classes() -> dict[str, dict[str, Any]]:
    return _read()["classes"]


def _functions() -> dict[str, str]:
    return _read()["functions"]
