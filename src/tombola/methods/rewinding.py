"""Rewinding: from which weights, and where in the schedule, each round and the ticket train."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from tombola.errors import TombolaError
from tombola.tickets import Mask, Provenance, Ticket, Values, tensors_of
from tombola.training import Fit, Recipe, Step

KEEPS_WEIGHTS = ("learning-rate", "fine-tune")
REWINDS = ("init", "fresh", *KEEPS_WEIGHTS)

End = Literal["end", "init"]
"""What a sparse training leaves: the network as it was trained, or its mask on the initialisation."""


def check_rewind(rewind: str) -> None:
    """Raise TombolaError unless the word is one of REWINDS or a step."""
    if rewind in REWINDS:
        return
    try:
        Step.parse(rewind)
    except TombolaError as error:
        raise TombolaError(f"rewind is '{rewind}'; give one of {', '.join(REWINDS)}, or a step as '500it'") from error


def step_of(rewind: str) -> Step:
    """The point in training whose weights come back; the beginning unless a step is named."""
    return Step(0, "it") if rewind in REWINDS else Step.parse(rewind)


def prescribed(rewind: str, recipe: Recipe) -> dict[str, Any]:
    """The fields of the recipe that this rewinding changes for the training that follows it.

    Fine-tuning goes on at the schedule's final learning rate. If a hundredth of the peak is larger, it takes that,
    since a cosine ends at nothing.
    """
    if rewind == "fine-tune":
        return {"lr": max(recipe.final_lr(100), recipe.lr / 100), "schedule": "constant", "warmup": 0.0}
    return {} if rewind in REWINDS else {"start": rewind}


def as_trained(model: nn.Module, mask: Mask, recipe: Recipe, fit: Fit) -> Ticket:
    """The network that a whole training has left, as a ticket with no training left to do."""
    return Ticket(
        mask,
        Values(tensors_of(model), "end", recipe.epochs),
        recipe={"start": f"{recipe.epochs}ep"},
        provenance=Provenance(before=fit.validation),
    )
