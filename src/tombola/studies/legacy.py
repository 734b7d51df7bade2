"""The settings of a run as the first version wrote them, read as today's."""

from __future__ import annotations

from typing import Any

from tombola.evidence import control_identity
from tombola.scores import forward
from tombola.training import identity, upgraded

WHERE_NOT_SAID = {"init_seed": None, "extra_epochs": 0.0, "lr": None, "robustness": None}
"""What the first version left out unless it was set."""

JUMPED = ("one-cycle", "cosine-by-epoch")
"""Schedules whose learning rate the first version let jump after a warm-up: other runs than today's."""


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
