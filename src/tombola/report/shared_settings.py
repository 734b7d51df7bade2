"""Settings of many runs told once: what all share, and what each arm has of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tombola.studies.result import Result

ABSENT = object()


def flat(settings: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and texts.

    Examples:
        >>> flat({"recipe": {"epochs": 10, "milestones": []}})
        {'recipe.epochs': '10', 'recipe.milestones': '[]'}
    """
    if isinstance(settings, Mapping) and settings:
        return {k: v for name, inner in settings.items() for k, v in flat(inner, f"{prefix}{name}.").items()}
    return {prefix.removesuffix("."): str(settings)} if prefix else {}


def shared_settings_of(results: Sequence[Result]) -> dict[str, str]:
    """The settings that every run has with the same value."""
    first, *others = [flat(r.settings) for r in results] or [{}]
    return {k: v for k, v in first.items() if all(other.get(k, ABSENT) == v for other in others)}


def settings_of_arms(results: Sequence[Result], shared: Mapping[str, str]) -> dict[str, str]:
    """The settings that all seeds of one arm have alike, without those shared by the whole study."""
    return {k: v for k, v in shared_settings_of(results).items() if k not in shared}
