"""The settings of a run as the first version wrote them, read as today's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tombola.evidence import control_identity
from tombola.scores import forward
from tombola.training import identity, upgraded

WHERE_NOT_SAID = {"init_seed": None, "extra_epochs": 0.0, "lr": None, "robustness": None}
"""What the first version left out unless it was set."""

UNRECORDED = ("source", "code", "frozen", "batches", "forward")
"""What the first version knew nothing of."""
JUMPED = ("one-cycle", "cosine-by-epoch")
"""Schedules whose learning rate the first version let jump after a warm-up: other runs than today's."""


def without_code(described: Any) -> Any:
    """Settings without what the first version did not record, or recorded otherwise: the user's own code."""
    if isinstance(described, Mapping):
        own = {key: without_code(value) for key, value in described.items() if key not in UNRECORDED}
        return own["is"] if own.keys() == {"is"} else own
    if isinstance(described, list):
        return [without_code(value) for value in described]
    return described.partition("#")[0] if isinstance(described, str) else described


def upgraded_run(settings: dict[str, Any]) -> dict[str, Any]:
    """All settings of a run in today's form; those of today as they are.

    The first version did not say how a network is called: the usual way is taken for it.
    """
    if "forward" in settings or "recipe" not in settings:
        return settings
    own = {key: value if key == "task" else upgraded(value) for key, value in settings.items()}
    own["forward"] = identity(forward)
    own["recipe"].pop("precision", None)
    if own["recipe"].get("warmup") and own["recipe"].get("schedule") in JUMPED:
        own["recipe"]["schedule"] += " with a jump"
    if "control" in settings:
        own = {**WHERE_NOT_SAID, **own, "control": control_identity(settings["control"])}
    return own
