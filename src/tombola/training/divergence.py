"""Losses that stop being finite numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.errors import TombolaError

WATCH_EVERY = 100
"""Steps between two looks at the losses: each look waits for the device."""


class Diverged(TombolaError):
    """The loss stopped being a finite number."""


def check_finite(losses: list[Tensor], first: int, where: str) -> None:
    """Raise Diverged for the first loss that is not finite; first: the step of the first loss, from 0."""
    if not losses:
        return
    bad = (~torch.stack(losses).isfinite()).nonzero().flatten()
    if len(bad):
        place = int(bad[0])
        raise Diverged(
            f"the loss became {float(losses[place])} at step {first + place + 1} of {where}: lower the learning rate "
            "or look at the data of that step"
        )
