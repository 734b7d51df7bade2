"""Random states that are functions of (seed, epoch) and leave the caller's as they were."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch

from tombola.structure import own_random_state, seed_torch


def mixed(*parts: int) -> int:
    """Mix several numbers into one seed of 63 bits.

    Args:
        parts: whole numbers, negative ones too, as a seed and an epoch.

    Examples:
        >>> mixed(0, 1) == mixed(0, 1), mixed(0, 1) == mixed(1, 0)
        (True, False)
    """
    # The shift leaves 63 bits, since torch's generators take signed seeds.
    return int(np.random.SeedSequence([p & 0xFFFFFFFFFFFFFFFF for p in parts]).generate_state(1, np.uint64)[0] >> 1)


def seed_everything(*parts: int) -> None:
    """Seed torch, NumPy and Python from several numbers."""
    seed = mixed(*parts)
    seed_torch(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # NumPy takes 32 bits
    random.seed(seed)


@contextmanager
def own_randomness(device: torch.device, *seeds: int) -> Generator[None]:
    """Draw from given seeds while the block runs, and put all global random states back afterwards.

    Args:
        device: whose generator is seeded too, beside those of the CPU, NumPy and Python.
        seeds: whole numbers, mixed into one seed.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with own_random_state(device):
        try:
            seed_everything(*seeds)
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
