"""Memory: the most that a run held, and what one training step needs."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from tombola.scores import Batch
from tombola.tickets.torch_private import storage_key
from tombola.training.cost import on_a_twin
from tombola.training.recipe import Recipe
from tombola.training.task import Task


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` begin anew, where the system lets a process do so: with CUDA, and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes: the most allocated on a CUDA device, else the process's largest resident size, since the last reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        highest = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if highest is not None:
            return int(highest[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def step_memory(task: Task, model: nn.Module, batch: Batch, recipe: Recipe) -> int:
    """Bytes that one training step holds: parameters, gradients, the optimizer's state, buffers, what backward keeps.

    Counted in the model's own precision without autocast and with masked weights like all others, so that a network
    has the same figure on every machine.
    """
    state = int(recipe.momentum > 0) if recipe.optimizer == "sgd" else 2
    held = sum((2 + state if p.requires_grad else 1) * p.nbytes for p in model.parameters())
    held += sum(buffer.nbytes for buffer in model.buffers())

    def kept(twin: nn.Module, batch: Batch) -> int:
        storages: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                storages[storage_key(storage)] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            task.loss(task.forward(twin, batch[0]), batch[1])
        own = {storage_key(tensor.untyped_storage()) for tensor in (*twin.parameters(), *twin.buffers())}
        return sum(storage.nbytes() for key, storage in storages.items() if key not in own)

    return held + on_a_twin(kept, model, batch)
