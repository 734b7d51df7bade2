"""Sorts the settings of many runs: those that all share, and those of each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tombola.studies.result import Result

ABSENT = object()


def flat(settings: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as texts by dotted name.

    Examples:
        >>> flat({"recipe": {"epochs": 10, "milestones": []}})
        {'recipe.epochs': '10', 'recipe.milestones': '[]'}
    """
    if isinstance(settings, Mapping) and settings:
        return {k: v for name, inner in settings.items() for k, v in flat(inner, f"{prefix}{name}.").items()}
    return {prefix.removesuffix("."): str(settings)} if prefix else {}


def shared_settings_of(results: Sequence[Result]) -> dict[str, str]:
    """The settings that have the same value in every run, by dotted name."""
    first, *others = [flat(result.settings) for result in results] or [{}]
    return {key: value for key, value in first.items() if all(other.get(key, ABSENT) == value for other in others)}


def settings_of_arms(results: Sequence[Result], shared: Mapping[str, str]) -> dict[str, str]:
    """The settings that have the same value in every run of an arm, without those that the whole study shares.

    Args:
        results: the runs of the arm.
        shared: what `shared_settings_of` gave for the whole study.
    """
    return {key: value for key, value in shared_settings_of(results).items() if key not in shared}
