"""Two processes that train together, for tests of distributed networks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessExitedException, start_processes


def in_two_processes(body: Callable[..., None], folder: Path, *words: object, attempts: int = 2) -> None:
    """Call a function in two processes that gloo connects; what it raises there is raised here.

    Args:
        body: a function of a module, called with the words.
        folder: where the processes find each other.
        words: plain values.
        attempts: how often to start them, since gloo may fail at the start and at the end.
    """
    for attempt in range(attempts):
        try:
            start_processes(
                _in_group, (folder / f"sync{time.monotonic_ns()}", body, words), nprocs=2, start_method="spawn"
            )
            return
        except ProcessExitedException:  # not an error of the function: the start or gloo's end failed
            if attempt + 1 == attempts:
                raise


def _in_group(rank: int, sync: Path, body: Callable[..., None], words: tuple[object, ...]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sync}", rank=rank, world_size=2)
    try:
        body(*words)
        dist.barrier()
    finally:
        dist.destroy_process_group()
