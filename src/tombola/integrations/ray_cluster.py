"""Workers on a Ray cluster (pip install 'tombola[ray]')."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tombola.errors import TombolaError
from tombola.studies import WorkOrder

Done = TypeVar("Done")
TOKEN = "RAY_AUTH_TOKEN"


def imported_ray() -> Any:
    """Ray, told to show the cluster's token: at an address it shows none by itself, and it is told on import alone."""
    if TOKEN in os.environ or f"{TOKEN}_PATH" in os.environ or Path("~/.ray/auth_token").expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray  # ty: ignore[import-not-found]

    return ray


@dataclass(frozen=True)
class RayCluster:
    """Starts workers on a Ray cluster; one that is lost is started again, on whichever node has room.

    All nodes must see the study's folder.

    Args:
        address: of the cluster: auto, or host:port.
        workers: how many; as many as there are processors, or GPUs, if None.
        device: where networks train: a worker takes one processor, and with `cuda` a GPU beside.
    """

    address: str
    asked: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        ray = imported_ray()
        if not ray.is_initialized():
            try:
                ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise TombolaError(
                    f"there is no Ray cluster at '{self.address}' ({str(error).splitlines()[0]}); start one with ray "
                    "start --head, or give its address"
                ) from error

    @property
    def needs_gpu(self) -> bool:
        """Whether each worker takes a GPU."""
        there = imported_ray().cluster_resources().get("GPU", 0)
        return self.device.startswith("cuda") or (self.device == "auto" and there > 0)

    @property
    def workers(self) -> int:
        """How many workers there are."""
        resource = "GPU" if self.needs_gpu else "CPU"
        return self.asked or max(1, int(imported_ray().cluster_resources().get(resource, 1)))

    def map(self, work: Callable[..., Done], *items: Sequence[Any]) -> Iterator[tuple[int, Done]]:
        """Call the work with the first items of the sequences, with the second ones, and so on, on the cluster.

        Yields:
            (index, result) pairs, each as soon as it is finished.

        Raises:
            TombolaError: a node does not see the folder of a study.
        """
        ray = imported_ray()
        resources: dict[str, Any] = {"num_cpus": 1, "num_gpus": int(self.needs_gpu), "max_retries": -1}
        remote = ray.remote(**resources)(_on_a_node)
        calls = list(zip(*items, strict=True))
        waiting = {}
        with contextlib.ExitStack() as marks:
            for place, values in enumerate(calls):
                waiting[remote.remote(work, values, _marked(values, marks))] = place
            while waiting:
                (done, *_), _ = ray.wait(list(waiting), num_returns=1)
                place = waiting.pop(done)
                try:
                    yield place, ray.get(done)
                except (
                    ray.exceptions.WorkerCrashedError
                ):  # what it was at, another worker has taken over by now, or will
                    waiting[remote.remote(work, calls[place], "")] = place


def _marked(values: Sequence[Any], marks: contextlib.ExitStack) -> str:
    """A file in the study's folder that a node must see."""
    orders = [value for value in values if isinstance(value, WorkOrder)]
    if not orders:
        return ""
    mark = Path(orders[0].study) / f".seen-{uuid.uuid4().hex[:12]}"
    mark.touch()
    marks.callback(mark.unlink, missing_ok=True)
    return str(mark)


def _on_a_node(work: Callable[..., Done], values: Sequence[Any], mark: str) -> Done:
    if mark and not Path(mark).exists() and not (Path(mark).parent / "study.toml").exists():
        raise TombolaError(
            f"the node {os.uname().nodename} does not see {Path(mark).parent}; share that folder among all"
        )
    return work(*values)
