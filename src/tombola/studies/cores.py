"""Independent work on every core, each piece in a process with one thread."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import joblib
import torch

Item = TypeVar("Item")
Done = TypeVar("Done")


def cores_for(device: torch.device) -> int:
    """How many pieces of work are done at once: one on a GPU, else one a core.

    The environment variable LOKY_MAX_CPU_COUNT (joblib's) allows fewer.
    """
    return joblib.cpu_count() if device.type == "cpu" else 1


def on_cores(cores: int, work: Callable[[Item], Done], items: Iterable[Item]) -> Iterator[Done]:
    """What `work` makes of each item, as it is finished; an item is drawn when a core is free. One core: right here.

    What the work warns of is warned of here.
    """
    if cores == 1:
        yield from map(work, items)
        return
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        pool = joblib.Parallel(cores, return_as="generator_unordered", pre_dispatch=cores, batch_size=1)
        for done, seen in pool(joblib.delayed(_noting)(work, item) for item in items):
            for warning in seen:
                warnings.warn(warning, stacklevel=2)
            yield done


def _noting(work: Callable[[Item], Done], item: Item) -> tuple[Done, list[Warning | str]]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        done = work(item)
    return done, [own.message for own in seen]
