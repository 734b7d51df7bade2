"""Losses that stop being finite numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.errors import TombolaError

WATCH_EVERY = 100
"""Steps between two looks at the losses: each look waits for the device."""


class Diverged(TombolaError):
    """The loss stopped being a finite number."""


def check_finite(losses: list[Tensor], first: int, name: str, kept: bool) -> None:
    """Raise Diverged for the first loss that is not finite.

    Args:
        losses: of one step after another.
        first: the step of the first loss, from 0.
        name: of the training.
        kept: whether a checkpoint is kept.
    """
    if not losses:
        return
    bad = (~torch.stack(losses).isfinite()).nonzero().flatten()
    if len(bad):
        place = int(bad[0])
        checkpoint = "the last good checkpoint is kept: " if kept else ""
        raise Diverged(
            f"the loss became {float(losses[place])} at step {first + place + 1} of {name}; {checkpoint}lower the "
            "learning rate or look at the data of that step"
        )
