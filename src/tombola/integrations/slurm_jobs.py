"""Workers as an array of SLURM jobs (pip install 'tombola[slurm]')."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import Any, Literal

import submitit  # ty: ignore[import-not-found]

from tombola.studies import WorkOrder, work_as_told

JOBS = "slurm"
"""The folder of the jobs' scripts and logs, in the study's."""


class ArrayWorker(submitit.helpers.Checkpointable):
    """One job of the array; a job that SLURM ends and queues again starts anew, and goes on with what is left."""

    def __call__(self, order: WorkOrder, number: int) -> Any:
        """Work until nothing is left."""
        return work_as_told(order, number)


def slurm_array(order: WorkOrder, workers: int, how: Literal["print", "submit", "local"]) -> dict[str, Any]:
    """Submit an array of workers, or print the script that would.

    Args:
        order: what each worker is told.
        workers: how many jobs the array has.
        how: `print` gives the script, `submit` queues it, and `local` starts the jobs as processes of this machine.

    Returns:
        The script, or the jobs' names.
    """
    hours = (order.until - time.time()) / 3600
    minutes = max(1, math.floor(60 * hours)) if hours < math.inf else 24 * 60
    gpus = {"gpus_per_node": 1} if order.device.startswith("cuda") else {}
    folder = Path(order.study) / JOBS
    if how == "print":
        return {"script": _script(order, workers, minutes, bool(gpus))}
    executor = submitit.AutoExecutor(folder, cluster="slurm" if how == "submit" else "local")
    executor.update_parameters(name="tombola", timeout_min=minutes, cpus_per_task=order.threads or 1, **gpus)
    if how == "submit":
        executor.update_parameters(slurm_array_parallelism=workers)
    jobs = executor.map_array(ArrayWorker(), [order] * workers, range(workers))
    return {"jobs": [str(job.job_id) for job in jobs]}


def _script(order: WorkOrder, workers: int, minutes: int, has_gpu: bool) -> str:
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=tombola",
        f"#SBATCH --array=0-{workers - 1}",
        f"#SBATCH --time={minutes}",
        f"#SBATCH --cpus-per-task={order.threads or 1}",
        *(["#SBATCH --gpus=1"] if has_gpu else []),
        "#SBATCH --requeue",
        f"#SBATCH --output={order.study}/{JOBS}/%A_%a.log",
    ]
    return "\n".join([*lines, "", shlex.join(order.words())])
