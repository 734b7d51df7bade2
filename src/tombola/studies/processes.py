"""Workers in processes of their own: one on each core with a single thread, or one on each GPU."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from loky import cpu_count

from tombola.errors import TombolaError
from tombola.studies.core_pool import on_cores
from tombola.studies.executor import Tasks
from tombola.studies.parcels import Parcel, packed, unpacked
from tombola.training import Bars, Meter, chosen_device

Done = TypeVar("Done")


def workers_for(device: torch.device) -> int:
    """How many workers a machine has room for: one a GPU, or one a core.

    The environment variable LOKY_MAX_CPU_COUNT can lower the number of cores.
    """
    return torch.cuda.device_count() if device.type == "cuda" else cpu_count()


@dataclass(frozen=True)
class Processes:
    """Carries out pieces of work at once, each in a process of its own with one thread.

    A process that is killed is started again, and its piece goes on from its last checkpoint.

    Args:
        workers: how many processes; one for each core, or for each GPU, if None.
        device: `cpu`, or `cuda` for one process on each GPU.
        bars: what shows progress.
        meter: estimates energy and carbon of each cost; None for no estimates.
        tasks: the settings of the tasks that were described so far.

    Examples:
        >>> executor = Processes(2, "cpu")
        >>> executor.workers, executor.threads
        (2, 1)
    """

    workers: int | None = None
    device: torch.device = field(default_factory=chosen_device)
    bars: Bars = Bars()
    meter: Meter | None = None
    tasks: Tasks = field(default_factory=Tasks, repr=False, compare=False)

    threads = 1

    def __post_init__(self) -> None:
        device = chosen_device(self.device)
        if device.type == "cuda" and device.index is not None:
            raise TombolaError(f"the device '{device}' is one GPU, and workers have one each; give the device cuda")
        most = workers_for(device)
        workers = most if self.workers is None else self.workers
        if workers < 1:
            raise TombolaError(f"workers is {workers}; give at least 1")
        if device.type == "cuda" and workers > most:
            raise TombolaError(f"workers is {workers}, and there are {most} GPUs, of which each takes one; give {most}")
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "workers", workers)

    def __reduce__(self) -> Any:
        # There, it is the executor of one worker: without bars, and with nothing to map on.
        return Processes, (1, self.device, Bars(), self.meter)

    def map(self, work: Callable[..., Done], *items: Sequence[Any]) -> Iterator[tuple[int, Done]]:
        left = dict(enumerate(zip(*items, strict=True)))
        with tempfile.TemporaryDirectory(prefix="tombola-") as folder:
            while left:
                parcels = (packed((place, values), Path(folder)) for place, values in list(left.items()))
                try:
                    for place, done in on_cores(
                        min(self.workers or 1, len(left)), partial(_called, work), parcels, here=False
                    ):
                        del left[place]
                        yield place, done
                except BrokenProcessPool:
                    continue  # a process was killed: the others' work is lost as well, but for its checkpoints


def _called(work: Callable[..., Done], parcel: Parcel) -> tuple[int, Done]:
    place, values = unpacked(parcel)
    return place, work(*values)
