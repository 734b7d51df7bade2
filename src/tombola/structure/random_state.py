"""Torch's random state, left as it was on every device."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def own_random_state(device: torch.device, seed: int | None = None) -> Generator[None]:
    """Inside, torch draws by the seed, if there is one; afterwards its random states are what they were.

    Args:
        device: where random numbers may be drawn, besides the CPU.
        seed: what to start from; None to go on from the present state.
    """
    # Seeding reaches every GPU, so that all their states are saved; but not on a machine whose GPUs are not in use,
    # where saving would initialise them.
    used = device.type == "cuda" or torch.cuda.is_initialized()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if used else (), device_type="cuda"):
        if seed is not None:
            seed_torch(seed)
        yield


def seed_torch(seed: int) -> None:
    """Seed torch on the CPU, and on GPUs if they are in use."""
    # torch.manual_seed would be queued for GPUs that are not in use, and seed them whenever they are first used.
    if torch.cuda.is_initialized():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
