"""What goes along when a network trains on a GPU: data in memory, if they fit there, and what a loss holds."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tombola.nested import mapped, tensors_in
from tombola.scores import Batch
from tombola.training.batches import MemoryBatches, move

SHARE = 0.25
"""The share of a GPU's free memory that one split may take."""


@dataclass(frozen=True)
class PinnedBatches:
    """Batches in pinned memory, from which they go to a GPU while it computes.

    Args:
        batches: on the CPU.
    """

    batches: Iterable[Batch]

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            yield mapped(batch, Tensor.pin_memory)


_placed: dict[Any, Any] = {}
"""Inputs and targets on a device, as long as those on the CPU live; None where they do not fit."""


def placed(batches: Iterable[Batch], device: torch.device) -> Iterable[Batch]:
    """Bring data in memory to where a network trains, once for all passes, if they fit there.

    Args:
        batches: one pass over a split.
        device: where the network is.

    Returns:
        The same batches in the same order.
    """
    if device.type == "cpu" or not isinstance(batches, MemoryBatches):
        return batches
    pair = batches.inputs, batches.targets
    tensors = tensors_in(pair)
    if not tensors or any(tensor.device.type != "cpu" for tensor in tensors):
        return batches
    key = (*map(id, tensors), str(device))
    if key not in _placed:
        fits = sum(tensor.nbytes for tensor in tensors) <= SHARE * free_memory(device)
        _placed[key] = move(pair, device) if fits else None
        weakref.finalize(tensors[0], _placed.pop, key, None)  # the next tensor may get its id
    if _placed[key] is not None:
        inputs, targets = _placed[key]
        return replace(batches, inputs=inputs, targets=targets)
    return PinnedBatches(batches) if device.type == "cuda" else batches


def bring_along(task: Any, device: torch.device) -> None:
    """Bring a loss and a metric that are modules to where the network is, with their tensors, as class weights.

    Args:
        task: a task, or a wrapper around one.
        device: where the network is.
    """
    while task is not None:
        for part in (getattr(task, "loss", None), getattr(task, "metric", None)):
            if isinstance(part, nn.Module):
                part.to(device)
        task = getattr(task, "task", None)


def free_memory(device: torch.device) -> int:
    """The bytes that are free on a GPU; 0 where that cannot be asked."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
