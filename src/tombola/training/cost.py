"""The cost ledger: what a search or a training really took."""

from __future__ import annotations

import copy
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tombola.scores import Batch, batch_size
from tombola.tickets import device_of
from tombola.training.batches import move
from tombola.training.randomness import own_randomness
from tombola.training.task import Task


@dataclass(frozen=True)
class Cost:
    """Work done: samples forward (validation too) and backward, FLOPs, seconds, peak memory in bytes.

    dense_epochs: the unit that compares methods; passes over the training split for training, for that of a smaller
    network as much less as its FLOPs are, and for a score its FLOPs over those of one epoch of dense training.
    """

    samples_forward: int = 0
    samples_backward: int = 0
    flops: int = 0
    seconds: float = 0.0
    peak_memory: int = 0
    dense_epochs: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.samples_forward + other.samples_forward,
            self.samples_backward + other.samples_backward,
            self.flops + other.flops,
            self.seconds + other.seconds,
            max(self.peak_memory, other.peak_memory),
            self.dense_epochs + other.dense_epochs,
        )


@dataclass(frozen=True)
class SampleFlops:
    """FLOPs of one sample through a dense network: forward alone, and forward with backward."""

    forward: float
    training: float

    @staticmethod
    def measure(task: Task, model: nn.Module, batch: Batch) -> SampleFlops:
        """Count one batch on a copy of the model without values, or with them where the model needs to see values."""
        try:
            return _count(task, model, batch, torch.device("meta"))
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            return _count(task, model, batch, device_of(model))


def _count(task: Task, model: nn.Module, batch: Batch, device: torch.device) -> SampleFlops:
    with own_randomness(device_of(model), 0), FlopCounterMode(display=False) as counter:
        twin = copy.deepcopy(model).to(device).train()
        inputs, targets = move(batch, device)
        loss = task.loss(task.forward(twin, inputs), targets)
        forward = counter.get_total_flops()
        loss.backward()
    return SampleFlops(forward / batch_size(batch), counter.get_total_flops() / batch_size(batch))


def train_samples(batches: Iterable[Batch]) -> int:
    """Samples in one pass over the training split."""
    known = getattr(batches, "count", None) or getattr(getattr(batches, "dataset", None), "__len__", lambda: None)()
    return known if isinstance(known, int) else sum(batch_size(batch) for batch in batches)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on a CUDA device, else the process's largest resident size so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
