"""The cost ledger: what a search or a training really took."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, default_collate
from torch.utils.flop_counter import FlopCounterMode

from tombola.scores import Batch, batch_size
from tombola.tickets import device_of
from tombola.training.batches import MemoryBatches, move
from tombola.training.randomness import own_randomness
from tombola.training.task import Task

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """Work done: samples forward (validation too) and backward, FLOPs, seconds, peak memory in bytes.

    energy in kWh and carbon in kg of CO₂e are a `Meter`'s estimates, 0 where there was none; step_memory is the bytes
    of one training step, as `step_memory` counts them, the most of what trained, 0 where nothing did.
    dense_epochs: the unit that compares methods; passes over the training split for training, for that of a smaller
    network as much less as its FLOPs are, and for a score its FLOPs over those of one epoch of dense training.
    """

    samples_forward: int = 0
    samples_backward: int = 0
    flops: int = 0
    seconds: float = 0.0
    peak_memory: int = 0
    dense_epochs: float = 0.0
    energy: float = 0.0
    carbon: float = 0.0
    step_memory: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.samples_forward + other.samples_forward,
            self.samples_backward + other.samples_backward,
            self.flops + other.flops,
            self.seconds + other.seconds,
            max(self.peak_memory, other.peak_memory),
            self.dense_epochs + other.dense_epochs,
            self.energy + other.energy,
            self.carbon + other.carbon,
            max(self.step_memory, other.step_memory),
        )


@dataclass(frozen=True)
class SampleFlops:
    """FLOPs of one sample through a dense network: forward alone, and forward with backward."""

    forward: float
    training: float

    @staticmethod
    def measure(task: Task, model: nn.Module, batch: Batch) -> SampleFlops:
        """Count one batch."""

        def count(twin: nn.Module, batch: Batch) -> SampleFlops:
            with FlopCounterMode(display=False) as counter:
                loss = task.loss(task.forward(twin, batch[0]), batch[1])
                forward = counter.get_total_flops()
                loss.backward()
            return SampleFlops(forward / batch_size(batch), counter.get_total_flops() / batch_size(batch))

        return on_a_twin(count, model, batch)


def on_a_twin(count: Callable[[nn.Module, Batch], T], model: nn.Module, batch: Batch) -> T:
    """What is counted on a copy of the model without values, or with them where the model needs to see values."""
    try:
        return _count(count, model, batch, torch.device("meta"))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return _count(count, model, batch, device_of(model))


def _count(count: Callable[[nn.Module, Batch], T], model: nn.Module, batch: Batch, device: torch.device) -> T:
    with own_randomness(device_of(model), 0):
        return count(copy.deepcopy(model).to(device).train(), move(batch, device))


def train_samples(batches: Iterable[Batch], most: int | None = None) -> int:
    """Samples that one pass over the training split gives, or the first `most` batches of one.

    These are not a data set's where a sampler takes some of it, or takes some twice, or where the last batch is left
    out. Where nothing says how many there are they are counted in a pass, once for as long as the batches live.
    """
    if isinstance(batches, MemoryBatches):
        given = min(batches.count, len(batches) * batches.size)
        return given if most is None else min(given, most * batches.size)
    known = getattr(batches, "samples", None)
    if isinstance(known, int) and most is None:
        return known
    counted = _remembered(batches)
    if most not in counted:
        with _left_alone(batches), own_randomness(torch.device("cpu"), 0):
            counted[most] = _counted(batches, most)
    return counted[most]


_memory: WeakKeyDictionary[Any, dict[int | None, int]] = WeakKeyDictionary()


def _remembered(batches: Iterable[Batch]) -> dict[int | None, int]:
    """What was counted of these very batches."""
    return _memory.setdefault(batches, {}) if type(batches).__hash__ is object.__hash__ else {}


@contextmanager
def _left_alone(batches: Any) -> Generator[None]:
    """Afterwards a loader's own generator stands where it stood, so that counting does not change the order of data."""
    generator = getattr(batches, "generator", None)
    own = [(generator, generator.get_state())] if isinstance(generator, torch.Generator) else []
    try:
        yield
    finally:
        for one, state in own:
            one.set_state(state)


def _counted(batches: Iterable[Batch], most: int | None) -> int:
    """The samples in a pass: by a loader's sampler, if one batch of it bears that out, else one by one."""
    sampler = getattr(batches, "batch_sampler", None)
    if isinstance(batches, DataLoader) and type(sampler) is BatchSampler and isinstance(sampler.sampler, Sized):
        given, size = len(sampler.sampler), sampler.batch_size
        given = given // size * size if sampler.drop_last else given
        given = given if most is None else min(given, most * size)
        if batches.collate_fn is default_collate or batch_size(next(iter(batches))) == min(size, given):
            return given
    return sum(batch_size(batch) for batch in islice(batches, most))
