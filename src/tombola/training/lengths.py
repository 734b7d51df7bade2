"""How many batches and samples a pass over a loader has, as far as the loader says it."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any

from torch.utils.data import BatchSampler, DataLoader


def count_by_sampler(loader: DataLoader, most: int | None) -> tuple[int, int] | None:
    """Count the samples that a loader's sampler draws.

    Args:
        loader: over a data set with an index.
        most: count the first so many batches alone; all if None.

    Returns:
        The samples, and those of the first batch; None where the sampler does not say it.
    """
    sampler = loader.batch_sampler
    if not (type(sampler) is BatchSampler and isinstance(sampler.sampler, Sized)):
        return None
    samples, size = len(sampler.sampler), sampler.batch_size
    samples = samples // size * size if sampler.drop_last else samples
    samples = samples if most is None else min(samples, most * size)
    return samples, min(size, samples)


def length_or_none(batches: Iterable[Any]) -> int | None:
    """How many batches a pass has; None for a stream that does not say it."""
    try:
        return len(batches) if isinstance(batches, Sized) else None
    except TypeError:  # a DataLoader whose sampler or stream has none
        return None
