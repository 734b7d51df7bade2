"""What a run needs of the machine, estimated before it starts."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from tombola.errors import TombolaError
from tombola.nested import tensors_in
from tombola.studies.prepared import Prepared
from tombola.training import Task, first_of, own_randomness, step_memory

PROCESS = 500 * 2**20
"""Bytes of a process that has imported torch and computed with it."""
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says how much memory a container has."""


def estimated_memory(task: Task, seed: int, device: torch.device) -> int:
    """The bytes that training a task's network needs on its device.

    They are those of one training step, of a second network (the start of a ticket, or the best values so far), and of
    the data that are in memory. On the CPU there is the process beside.

    Args:
        task: gives network, data and recipe.
        seed: of the network.
        device: where it trains.
    """
    with own_randomness(torch.device("cpu"), seed):
        model, batch = task.build(seed), first_of(task.batches("train", seed, 0))
    network = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    data = sum(tensor.nbytes for tensor in tensors_in(getattr(task, "data", ())))
    needed = step_memory(task, model, batch, task.recipe) + network + data
    return needed + (PROCESS if device.type == "cpu" else 0)


def memory_of(device: torch.device) -> int:
    """The bytes of memory that this machine, container or GPU has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return min([psutil.virtual_memory().total, *filter(None, map(_limit, LIMITS))])


def free_memory(device: torch.device) -> int:
    """The bytes of memory that are free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(psutil.virtual_memory().available, memory_of(device))


def workers_that_fit(asked: int, needed: int, device: torch.device) -> int:
    """How many workers the free memory is enough for, at least one; on a GPU one is all there is.

    Examples:
        >>> workers_that_fit(4, 2**60, torch.device("cpu"))
        1
    """
    return asked if device.type == "cuda" else max(1, min(asked, free_memory(device) // needed))


class TooLarge(TombolaError):
    """A run needs more memory than there is."""


def check_memory(run: Prepared) -> None:
    """TooLarge if the machine has too little memory for a run."""
    device = run.executor.device
    needed, there = memory_needed(run), memory_of(device)
    if needed > there:
        raise TooLarge(
            f"it needs about {_gigabytes(needed)} of memory, and {device.type} has {_gigabytes(there)}; give a smaller "
            "batch or width"
        )


def memory_needed(run: Prepared) -> int:
    """The bytes that a run needs, estimated once a task."""
    known, task = run.executor.tasks.memory, run.spec.task
    if id(task) not in known:
        known[id(task)] = task, estimated_memory(task, run.spec.seed, run.executor.device)
    return known[id(task)][1]


def _limit(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # there is none, or it is "max"
        return None


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
