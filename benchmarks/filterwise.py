"""LoFT by two workers: as two processes of one thread against one process of one thread, and the bytes they send."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

import tombola as tb
from benchmarks.measure import Figure, spread
from tombola import zoo

METHOD = tb.methods.LoFT(epsilon=0.0)
WORKERS, EPOCHS = METHOD.team, 4


def task() -> tb.SupervisedTask:
    """Pre-activation ResNet-20 on random images at 14×14, 15 steps an epoch."""
    inputs, targets = torch.randn(15 * 128, 1, 14, 14), torch.randint(0, 10, (15 * 128,))
    few = inputs[:128], targets[:128]
    data = {"train": (inputs, targets), "validation": few, "test": few}
    recipe = tb.Recipe(epochs=EPOCHS, precision="float32")
    return tb.SupervisedTask(zoo.model("preresnet20", (1, 14, 14), 10), data, recipe=recipe)


def searched() -> tuple[list[float], int, int]:
    """Seconds of each epoch of a search but the first, which warms up; and the bytes that were counted in all."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = tb.training.Run(0, device="cpu")
    tb.find(task(), METHOD, run=run, progress=False)
    ends = [row["seconds"] for row in run.history]
    last = run.history[-1]
    return (
        [later - earlier for earlier, later in pairwise(ends)],
        last["communicated"],
        last["communicated_data_parallel"],
    )


def of_process(rank: int, folder: Path) -> None:
    """One of the processes, which writes down how long its epochs took."""
    os.environ["OMP_NUM_THREADS"] = "1"
    dist.init_process_group("gloo", init_method=f"file://{folder / 'sync'}", rank=rank, world_size=WORKERS)
    seconds, _, _ = searched()
    (folder / f"{rank}").write_text(" ".join(map(str, seconds)))
    dist.destroy_process_group()


def figures(repeats: int = 3) -> Iterator[Figure]:
    threads, alone, together = torch.get_num_threads(), list[float](), list[float]()
    communicated = data_parallel = 0
    for _ in range(repeats):  # in turns
        seconds, communicated, data_parallel = searched()
        alone += seconds
        with tempfile.TemporaryDirectory() as folder:
            start_processes(of_process, (Path(folder),), nprocs=WORKERS, start_method="spawn")
            each = [[float(word) for word in (Path(folder) / f"{rank}").read_text().split()] for rank in range(WORKERS)]
        together += [max(epoch) for epoch in zip(*each, strict=True)]
    torch.set_num_threads(threads)
    setup = "preresnet20 at 14×14, batch 128, a merge every 15 steps"
    note = f"an epoch of two workers in one process {median(alone):.2f} s"
    wide = max(spread(alone), spread(together))
    yield Figure(
        f"LoFT epoch, 2 processes of one thread ÷ one process ({setup})",
        median(together) / median(alone),
        0.65,
        note,
        wide,
    )
    note = f"{communicated / 2**20:.1f} MiB, counted with both workers"
    yield Figure(f"LoFT's bytes ÷ those of data-parallel training ({setup})", communicated / data_parallel, None, note)
