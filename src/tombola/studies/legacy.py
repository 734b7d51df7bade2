"""Settings of runs that the first version wrote, translated to today's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tombola.evidence import control_identity
from tombola.scores import forward
from tombola.training import identity, upgraded

WHERE_NOT_SAID = {"init_seed": None, "extra_epochs": 0.0, "lr": None, "robustness": None}
"""Settings that the first version left out at these values."""

UNRECORDED = ("source", "code", "frozen", "batches", "forward")
"""Settings that the first version did not record."""
JUMPED = ("one-cycle", "cosine-by-epoch")
"""Schedules whose learning rate jumped after a warm-up in the first version, so that such runs differ from today's."""


MASKED_GRASP = "grasp@1"
"""What GraSP was where a mask had removed weights, whose gradients it counted; without a mask it is what it was."""


def _scored_masked(subject: Mapping[str, Any]) -> bool:
    """Whether a run scored a network by GraSP of which weights were gone."""
    if not isinstance(score := subject.get("score"), Mapping):
        return False
    in_rounds = subject.get("is", "").startswith("iterative@") or subject.get("rounds", 1) > 1
    return in_rounds and score.get("is", "").startswith("grasp@")


def without_code(described: Any) -> Any:
    """Settings without the user's code, which the first version did not record, or recorded in another way."""
    if isinstance(described, Mapping):
        settings = {key: without_code(value) for key, value in described.items() if key not in UNRECORDED}
        return settings["is"] if settings.keys() == {"is"} else settings
    if isinstance(described, list):
        return [without_code(value) for value in described]
    return described.partition("#")[0] if isinstance(described, str) else described


def upgraded_run(settings: dict[str, Any]) -> dict[str, Any]:
    """All settings of a run in today's form; settings of today's form stay as they are.

    The first version did not record how a network is called: it counts as called in the usual way.
    """
    if "forward" in settings or "recipe" not in settings:
        return settings
    today = {key: value if key == "task" else upgraded(value) for key, value in settings.items()}
    subject = today.get("subject")
    if isinstance(subject, Mapping) and _scored_masked(subject):
        today["subject"] = {**subject, "score": {**subject["score"], "is": MASKED_GRASP}}
    today["forward"] = identity(forward)
    recipe = today["recipe"]
    recipe.pop("precision", None)  # the settings hold it beside the recipe
    if recipe.get("warmup") and recipe.get("schedule") in JUMPED:
        recipe["schedule"] += " with a jump"
    if "control" in settings:  # settings of a search have none
        today = {**WHERE_NOT_SAID, **today, "control": control_identity(settings["control"])}
    return today
