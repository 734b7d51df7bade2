"""Independent work on every core, each piece in a process with one thread."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from itertools import islice
from typing import TypeVar

import torch
from loky import cpu_count, get_reusable_executor

Item = TypeVar("Item")
Done = TypeVar("Done")

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
IDLE_SECONDS = 300
"""After which a process without work ends."""


def cores_for(device: torch.device) -> int:
    """How many pieces of work are done at once: one on a GPU, else one a core.

    The environment variable LOKY_MAX_CPU_COUNT allows fewer.
    """
    return cpu_count() if device.type == "cpu" else 1


def on_cores(cores: int, work: Callable[[Item], Done], items: Iterable[Item]) -> Iterator[Done]:
    """What `work` makes of each item, as it is finished. One core: right here, with the threads that torch has.

    An item is drawn when a core is free and what that core had finished has been seen to, so that it can be chosen by
    all that is known. What the work warns of is warned of here. Where it fails, or nobody asks for more, the processes
    are ended.
    """
    if cores == 1:
        yield from map(work, items)
        return
    pool, drawn = get_reusable_executor(cores, timeout=IDLE_SECONDS, env=ONE_THREAD), iter(items)
    try:
        running = {pool.submit(_noting, work, item) for item in islice(drawn, cores)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for one in finished:
                done, seen = one.result()
                for warning in seen:
                    warnings.warn(warning, stacklevel=2)
                yield done
                running |= {pool.submit(_noting, work, item) for item in islice(drawn, 1)}
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise


def _noting(work: Callable[[Item], Done], item: Item) -> tuple[Done, list[Warning | str]]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        done = work(item)
    return done, [own.message for own in seen]
