"""What a training keeps now and then, and how it goes on from that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tombola.tickets import put_values, tensors_of
from tombola.training.checkpoint import Checkpoint
from tombola.training.cost import Cost
from tombola.training.observers import Observer, State
from tombola.training.stepping import WeightStepper


@dataclass(frozen=True)
class Begun:
    """What an epoch has done before a checkpoint within it.

    Args:
        losses: of its steps.
        samples: that it trained on.
    """

    losses: Sequence[Tensor] = ()
    samples: int = 0


Keep = Callable[[Begun], None]
"""Keeps the state of now, with what an epoch has done."""


def keep_state(
    checkpoint: Checkpoint | None,
    state: State,
    stepper: WeightStepper,
    observers: Sequence[Observer],
    cost: Cost,
    begun: Begun | None = None,
) -> None:
    """Keep the state of now, if it is due.

    Args:
        checkpoint: where; None keeps nothing.
        state: where the loop is.
        stepper: makes the optimizer's steps.
        observers: look on.
        cost: of the epochs before this one.
        begun: what was done of this one; None between two epochs.
    """
    if checkpoint is None or not checkpoint.due():
        return
    saved = {
        "values": tensors_of(state.model),
        "optimizer": state.optimizer.state_dict(),
        "stepper": stepper.state_dict(),
        "step": state.step,
        "epoch": state.epoch,
        "history": state.history,
        "observers": [observer.state_dict() for observer in observers],
        "cost": asdict(cost),
    }
    within = {} if begun is None else {"losses": torch.stack([*begun.losses]), "samples": begun.samples}
    checkpoint.save(saved | within)


def restore(
    saved: dict[str, Any], state: State, stepper: WeightStepper, observers: Sequence[Observer]
) -> tuple[Cost, Begun]:
    """Bring model, optimizer, state and observers to where a checkpoint left them.

    Returns:
        The cost of the epochs before that, and what was done of the one that had begun.
    """
    put_values(state.model, saved["values"])
    state.optimizer.load_state_dict(saved["optimizer"])
    stepper.load_state_dict(saved.get("stepper", {}))  # which older checkpoints do not have
    state.step, state.epoch, state.history = saved["step"], saved["epoch"], saved["history"]
    for observer, observed in zip(observers, saved["observers"], strict=True):
        observer.load_state_dict(observed)
    begun = Begun(saved["losses"].unbind(), saved["samples"]) if "losses" in saved else Begun()
    return Cost(**saved["cost"]), begun
