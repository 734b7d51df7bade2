"""Random state as a function of (seed, epoch), and leaving the caller's as it was."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch

from tombola.structure import own_random_state, seed_torch


def mixed(*parts: int) -> int:
    """One 63-bit seed from several numbers."""
    return int(np.random.SeedSequence([p & 0xFFFFFFFFFFFFFFFF for p in parts]).generate_state(1, np.uint64)[0] >> 1)


def seed_everything(*parts: int) -> None:
    """Seed torch, NumPy and Python from several numbers."""
    seed = mixed(*parts)
    seed_torch(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


@contextmanager
def own_randomness(device: torch.device, *seeds: int) -> Generator[None]:
    """Inside, all randomness comes from the seeds; afterwards the global random states are what they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with own_random_state(device):
        try:
            seed_everything(*seeds)
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
