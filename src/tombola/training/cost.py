"""The cost ledger: what a search or a training really took."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Generator, Hashable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import FunctionType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.data import DataLoader, default_collate

from tombola.nested import leaves_of
from tombola.scores import Batch, batch_size
from tombola.shrinking import flop_counter
from tombola.structure import meta_twin
from tombola.tickets import device_of, gradients_taken, recomputable
from tombola.training.adversarial_task import adversary_of
from tombola.training.attacked_batches import attacker
from tombola.training.batches import MemoryBatches, move
from tombola.training.lengths import count_by_sampler
from tombola.training.loaders import LoadedBatches
from tombola.training.randomness import own_randomness
from tombola.training.task import Task

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What a piece of work took. Costs add up; of two memories the larger counts.

    Args:
        samples_forward: samples that went forward, those of validation too.
        samples_backward: samples that went backward.
        flops: floating-point operations.
        seconds: wall-clock time.
        peak_memory: bytes, as `peak_memory` reads them.
        dense_epochs: the unit that compares methods. For training: passes over the training split, and on a smaller
            network the share of them that its FLOPs are. For a score: its FLOPs over those of one epoch of dense
            training.
        energy: kWh, as a `Meter` estimates them; 0 without one.
        carbon: kg of CO₂e, as a `Meter` estimates them; 0 without one.
        step_memory: bytes of one training step, as `step_memory` counts them; 0 where nothing trained.

    Examples:
        >>> total = Cost(samples_forward=10, peak_memory=5) + Cost(samples_forward=2, peak_memory=7)
        >>> total.samples_forward, total.peak_memory
        (12, 7)
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
    """FLOPs of one sample through a dense network.

    Args:
        forward: those of a forward pass alone.
        training: those of a forward and a backward pass, and of the attack on the inputs if there is one.
        attack: those of that attack alone.
    """

    forward: float
    training: float
    attack: float = 0.0

    @staticmethod
    def measure(task: Task, model: nn.Module, batch: Batch) -> SampleFlops:
        """Count the FLOPs of one batch of the task, without changing the model."""

        def count(twin: nn.Module, batch: Batch) -> SampleFlops:
            with recomputable(), flop_counter() as counter:
                loss = task.loss(task.forward(twin, batch[0]), batch[1])
                forward = counter.get_total_flops()
                loss.backward()
                gradients_taken()
                plain = counter.get_total_flops()
                if (attack := attacker(task, twin, task.recipe)) is not None:
                    attack(*batch)
                training, size = counter.get_total_flops(), batch_size(batch)
            return SampleFlops(forward / size, training / size, (training - plain) / size)

        return on_a_twin(count, task, model, batch)


def on_a_twin(count: Callable[[nn.Module, Batch], T], task: Task, model: nn.Module, batch: Batch) -> T:
    """Count something on a copy of the model, on the meta device if the model can run there.

    What was counted there is remembered: the same modules and shapes give the same count.

    Args:
        count: counts on the copy, which is in training mode, and on the batch, which is on the same device.
        task: whose forward pass and loss are counted.
        model: is copied; it stays as it is.
        batch: inputs and targets.

    Returns:
        What `count` returns.
    """
    known, key = counted_for(task), (getattr(count, "__qualname__", ""), modules_of(model), _shapes_of(batch))
    if key in known:
        return known[key]
    try:
        # On the meta device tensors have shapes but no values, so that counting takes no time and no memory.
        known[key] = _count_on(meta_twin(model), count, model, batch)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # the model's forward looks at values
        return _count_on(copy.deepcopy(model), count, model, batch)
    return known[key]


def remembered(task: Task) -> dict[Hashable, Any]:
    """What was found out about a task's networks, as long as the task lives."""
    if id(task) not in _of_task:
        _of_task[id(task)] = {}
        weakref.finalize(task, _of_task.pop, id(task), None)  # The next object may get its id.
    return _of_task[id(task)]


def counted_for(task: Task) -> dict[Hashable, Any]:
    """The counts under a task's forward pass and loss.

    Plain functions do the same in every task, and their counts live as long as they do. What else they may be is
    remembered as long as the task lives.
    """
    forward, loss = task.forward, task.loss
    if adversary_of(task) is not None or not all(
        isinstance(part, FunctionType) and part.__closure__ is None for part in (forward, loss)
    ):
        return remembered(task)
    known = _of_functions.setdefault(forward, WeakKeyDictionary()).setdefault(loss, {})
    if len(known) > MOST_COUNTS:
        known.clear()
    return known


MOST_COUNTS = 100
"""How many are kept of one forward pass and loss."""
_of_functions: WeakKeyDictionary[Any, WeakKeyDictionary[Any, dict[Hashable, Any]]] = WeakKeyDictionary()
_of_task: dict[int, dict[Hashable, Any]] = {}


def modules_of(model: nn.Module) -> Hashable:
    """What decides how much a network computes: modules with their plain attributes, and the shapes of its tensors."""
    modules = tuple(
        (name, type(module), repr([item for item in vars(module).items() if _is_setting(*item)]))
        for name, module in model.named_modules()
    )
    tensors = (*model.named_parameters(), *model.named_buffers())
    return modules, tuple((name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in tensors)


def _is_setting(name: str, value: Any) -> bool:
    if isinstance(value, list | set | dict):
        return all(_is_setting("", part) for part in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float | str | tuple | FunctionType | None) and name != "training"


def _shapes_of(value: Any) -> Hashable:
    return tuple((v.shape, v.dtype) if isinstance(v, torch.Tensor) else repr(v) for v in leaves_of(value))


def _count_on(twin: nn.Module, count: Callable[[nn.Module, Batch], T], model: nn.Module, batch: Batch) -> T:
    # A forward pass may draw at random, as dropout does; the caller's random state stays as it is.
    with own_randomness(device_of(model), 0):
        return count(twin.train(), move(batch, device_of(twin)))


def train_samples(batches: Iterable[Batch], most: int | None = None) -> int:
    """Count the samples of one pass over the training split.

    This is not the length of the data set where a sampler takes some samples only, or some twice, or where the last
    batch is left out. Where nothing says how many there are, a pass counts them, once while the batches live.

    Args:
        batches: the split's.
        most: count the first so many batches alone; all if None.

    Returns:
        How many samples they give.
    """
    if isinstance(batches, LoadedBatches):
        return batches.samples if most is None else batches.shortened(most).samples
    if isinstance(batches, MemoryBatches):
        samples = min(batches.count, len(batches) * batches.size)
        return samples if most is None else min(samples, most * batches.size)
    samples = getattr(batches, "samples", None)
    if isinstance(samples, int) and most is None:
        return samples
    counts = _counts_of(batches)
    if most not in counts:
        with _generator_kept(batches), own_randomness(torch.device("cpu"), 0):
            counts[most] = _count_samples(batches, most)
    return counts[most]


_counts: WeakKeyDictionary[Any, dict[int | None, int]] = WeakKeyDictionary()


def _counts_of(batches: Iterable[Batch]) -> dict[int | None, int]:
    """Earlier counts of these very batches, by the number of batches counted."""
    # Only objects that are equal to themselves alone: the dictionary would take two equal loaders for one.
    return _counts.setdefault(batches, {}) if type(batches).__hash__ is object.__hash__ else {}


@contextmanager
def _generator_kept(batches: Any) -> Generator[None]:
    """Put a loader's own generator back afterwards, so that counting does not change the order of data."""
    generator = getattr(batches, "generator", None)
    state = generator.get_state() if isinstance(generator, torch.Generator) else None
    try:
        yield
    finally:
        if isinstance(generator, torch.Generator) and state is not None:
            generator.set_state(state)


def _count_samples(batches: Iterable[Batch], most: int | None) -> int:
    """Count by a loader's sampler if one batch of the loader confirms it, else batch by batch."""
    counted = count_by_sampler(batches, most) if isinstance(batches, DataLoader) else None
    if isinstance(batches, DataLoader) and counted is not None:
        samples, size = counted
        # A collate function of the user's own may split or merge samples.
        if batches.collate_fn is default_collate or batch_size(next(iter(batches))) == size:
            return samples
    return sum(batch_size(batch) for batch in islice(batches, most))
