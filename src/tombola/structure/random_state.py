"""Torch's random state, and leaving it as it was on every device."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def own_random_state(device: torch.device, seed: int | None = None) -> Generator[None]:
    """Inside, torch draws by the seed, if there is one; afterwards its states are what they were.

    Seeding reaches all GPUs, so that all are saved as soon as one may have been drawn on; none is initialised for it.
    """
    used = device.type == "cuda" or torch.cuda.is_initialized()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if used else ()):
        if seed is not None:
            seed_torch(seed)
        yield


def seed_torch(seed: int) -> None:
    """Seed torch; GPUs only if they are in use, since they would else remember the seed until they are."""
    if torch.cuda.is_initialized():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
