"""Independent work on every core, each piece in a process with a single thread."""

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
"""A process that is without work for so long ends."""


def cores_for(device: torch.device) -> int:
    """How many pieces of work run at once: one on a GPU, else one a core.

    The environment variable LOKY_MAX_CPU_COUNT can lower the number.
    """
    return cpu_count() if device.type == "cpu" else 1


def on_cores(cores: int, work: Callable[[Item], Done], items: Iterable[Item], here: bool = True) -> Iterator[Done]:
    """Call `work` with each item on as many cores.

    An item is drawn when a core is free and the caller has received its last result, so that the items can depend on
    all results so far. Warnings of the work are repeated here. The processes end when the work fails, or when the
    caller stops asking.

    Args:
        cores: how many processes; with 1 the work runs here, with torch's own number of threads.
        work: a function that can be pickled.
        items: what it is called with.
        here: False takes a process of its own even for one core.

    Returns:
        The results, each as soon as it is finished.

    Examples:
        >>> list(on_cores(1, abs, [-1, 2]))
        [1, 2]
    """
    if cores == 1 and here:
        yield from map(work, items)
        return
    pool, remaining = get_reusable_executor(cores, timeout=IDLE_SECONDS, env=ONE_THREAD), iter(items)
    try:
        running = {pool.submit(_with_warnings, work, item) for item in islice(remaining, cores)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                result, messages = future.result()
                for message in messages:
                    warnings.warn(message, stacklevel=2)
                yield result
                running |= {pool.submit(_with_warnings, work, item) for item in islice(remaining, 1)}
    except BaseException:  # GeneratorExit too, when the caller stops asking
        pool.shutdown(kill_workers=True)
        raise


def _with_warnings(work: Callable[[Item], Done], item: Item) -> tuple[Done, list[Warning | str]]:
    """The result of the work and its warnings, which a process would write to its own stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        result = work(item)
    return result, [warning.message for warning in caught]
