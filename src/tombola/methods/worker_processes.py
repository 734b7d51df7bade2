"""Workers as processes of their own: what they say to each other, for how long they wait, and what they keep."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import astuple, dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tombola.errors import TombolaError
from tombola.training import Bars, Checkpoint, Cost, Run

T = TypeVar("T")


@dataclass(eq=False)
class Processes:
    """The processes of a search, of which the first leads: it alone has the whole network.

    Args:
        rank: of this process.
        count: how many there are.
        limit: seconds to wait for a worker that does not answer.
        data: the group through which weights go.
        control: the group through which all else goes, on the CPU.
        sent: bytes of weights that this process has sent.
        received: bytes of weights that it has received.
    """

    rank: int
    count: int
    limit: float
    data: Any
    control: Any
    sent: int = field(default=0, init=False)
    received: int = field(default=0, init=False)

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0

    def meet(self) -> None:
        """Wait until all are here; TombolaError if one does not come within the limit."""
        with self._named("the others"):
            dist.monitored_barrier(self.control, timedelta(seconds=self.limit), wait_all_ranks=True)

    def send(self, to: int, tensors: Mapping[str, Tensor]) -> None:
        """Send tensors to another process in one message.

        Args:
            to: its rank.
            tensors: of floating point; names and shapes are known there.
        """
        message = self._message(torch.cat([tensor.detach().flatten() for tensor in tensors.values()]))
        with self._named(f"worker {to}"):
            dist.send(message, to, self.data)
        self.sent += message.nbytes

    def receive(self, of: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Wait for the tensors that another process sends.

        Args:
            of: its rank.
            like: tensors of the same names, shapes and types, in the same order.
        """
        kinds = torch.cat([tensor.flatten()[:0] for tensor in like.values()])  # of the type that holds all others
        message = self._message(kinds.new_empty(sum(tensor.numel() for tensor in like.values())))
        with self._named(f"worker {of}"):
            dist.recv(message, of, self.data)
        self.received += message.nbytes
        parts = message.to(kinds.device).split([tensor.numel() for tensor in like.values()])
        return {
            name: part.view(tensor.shape).to(tensor.dtype)
            for (name, tensor), part in zip(like.items(), parts, strict=True)
        }

    def told(self, value: T) -> T:
        """What the first process gives, on all of them."""
        words = [value]
        with self._named("worker 0"):
            dist.broadcast_object_list(words, 0, self.control, torch.device("cpu"))
        return words[0]

    def gathered(self, value: T) -> list[T]:
        """What each process gives, on all of them."""
        parts: list[Any] = [None] * self.count
        with self._named("the others"):
            dist.all_gather_object(parts, value, self.control)
        return parts

    def _message(self, tensor: Tensor) -> Tensor:
        """The tensor where the group takes it: gloo sends from the CPU alone."""
        return tensor.cpu() if dist.get_backend(self.data) == "gloo" else tensor.contiguous()

    @contextmanager
    def _named(self, whom: str) -> Generator[None]:
        """Say who did not answer, where torch says only that nobody did."""
        try:
            yield
        except RuntimeError as error:
            silent = re.search(r"[Rr]anks? (\d+(?:, ?\d+)*) failed to pass", str(error))
            if silent is not None:
                whom = f"worker{'s' * (',' in silent[1])} {silent[1]}"
            raise TombolaError(
                f"worker {self.rank} has waited for {whom} in vain, for up to {self.limit:g} s: it hangs or has ended "
                f"({str(error).splitlines()[0]}); begin again with the same folder, as torchrun --max-restarts does "
                "by itself: all workers then go on from the last averaged state"
            ) from error


def place_at_torchrun() -> tuple[int, int]:
    """The rank of this process and the number of those that torchrun started; 0 and 1 where it started none."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


@contextmanager
def processes(workers: int, limit: float, device: torch.device) -> Generator[Processes | None]:
    """The processes that torchrun started, or whose group is there already; None where this process is alone.

    Args:
        workers: how many there must be.
        limit: seconds to wait for one that does not answer.
        device: where networks train. It chooses between NCCL and gloo where there is no group yet.

    Raises:
        TombolaError: if there are more or fewer processes than workers.
    """
    begun = dist.is_available() and not dist.is_initialized() and dist.is_torchelastic_launched()
    if begun:
        _begin("nccl" if device.type == "cuda" else "gloo", timedelta(seconds=limit))
    try:
        if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
            yield None
            return
        if dist.get_world_size() != workers:
            raise TombolaError(
                f"{dist.get_world_size()} processes were started for {workers} workers; give "
                f"team={dist.get_world_size()}, or torchrun --nproc-per-node {workers}"
            )
        control = dist.new_group(backend="gloo", timeout=timedelta(seconds=limit))
        alike = dist.get_backend() == "gloo"
        data = control if alike else dist.new_group(timeout=timedelta(seconds=limit))
        yield Processes(dist.get_rank(), workers, limit, data, control)
        for group in {control, data}:
            dist.destroy_process_group(group)
    finally:
        if begun:
            dist.destroy_process_group()


def _begin(backend: str, limit: timedelta) -> None:
    """Connect the processes that torchrun started."""
    said = os.environ
    if said.get("LOCAL_WORLD_SIZE") != said["WORLD_SIZE"]:  # several machines, each with its own count of restarts
        dist.init_process_group(backend, timeout=limit)
        return
    # After a restart torchrun's store still has the addresses of the processes that ended.
    at_torchrun = dist.TCPStore(said["MASTER_ADDR"], int(said["MASTER_PORT"]), is_master=False, timeout=limit)
    store = dist.PrefixStore(f"restart {said['TORCHELASTIC_RESTART_COUNT']}", at_torchrun)
    rank, size = place_at_torchrun()
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)


class ProcessRun(Run):
    """A run whose stages go on together in all processes: the first one keeps them, and tells the others.

    Args:
        run: the process's own.
        processes: those that train together.
        own: the tensors of this process's module that no other has, which stay as they are where a stage goes on.
    """

    def __init__(self, run: Run, processes: Processes, own: Callable[[], Mapping[str, Tensor]]) -> None:
        bars = run.bars if processes.leads else Bars()
        super().__init__(run.seed, run.folder, run.device, bars, run.checkpoint_seconds, run.meter, run.lease)
        self._processes = processes
        self._own = own

    def file(self, name: str) -> Checkpoint | None:
        kept = super().file(name)
        return None if kept is None else _TogetherKept(kept, self._processes, self._own)

    def summed(self, cost: Cost) -> Cost:
        """What all processes together have spent; the seconds are those of the slowest."""
        parts = [Cost(*own) for own in self._processes.gathered(astuple(cost))]
        return replace(sum(parts[1:], parts[0]), seconds=max(own.seconds for own in parts))


class _TogetherKept(Checkpoint):
    """A checkpoint that the first process writes and reads, for all."""

    def __init__(self, kept: Checkpoint, processes: Processes, own: Callable[[], Mapping[str, Tensor]]) -> None:
        super().__init__(kept.path)
        self._kept, self._processes, self._own = kept, processes, own

    def due(self) -> bool:
        return self._processes.told(self._processes.leads and self._kept.due())

    def save(self, state: dict[str, Any]) -> None:
        if "losses" in state:  # those of an epoch's first steps, of this worker alone
            state["losses"] = torch.stack(self._processes.gathered(state["losses"].cpu())).mean(0)
        if self._processes.leads:
            self._kept.save(state)

    def load(self) -> dict[str, Any] | None:
        saved = self._processes.told(self._kept.load() if self._processes.leads else None)
        if saved is not None and {"values", "cost"} <= saved.keys():
            saved["values"] = saved["values"] | dict(self._own())
            if not self._processes.leads:  # The first process alone measures the network.
                saved["cost"]["samples_forward"] = saved["cost"]["samples_backward"]
        return saved

    @contextmanager
    def fitting(self) -> Generator[None]:
        with self._kept.fitting() if self._processes.leads else nullcontext():  # the first process has the file
            yield

    def remove(self) -> None:
        if self._processes.leads:
            self._kept.remove()
