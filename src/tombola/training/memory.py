"""Memory: the peak of a run, and what one training step needs."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from tombola.scores import Batch
from tombola.tickets import recomputable
from tombola.tickets.torch_private import storage_key
from tombola.training.cost import on_a_twin
from tombola.training.own_optimizer import own
from tombola.training.recipe import Recipe
from tombola.training.task import Task


def reset_peak_memory(device: torch.device) -> None:
    """Start `peak_memory` afresh, where the system allows it: with CUDA, and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # 5 resets VmHWM, the peak resident size (man 5 proc)


def peak_memory(device: torch.device) -> int:
    """The peak since the last reset, in bytes: of a CUDA device's allocations, else of the process's resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        highest = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if highest is not None:
            return int(highest[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, all others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def step_memory(task: Task, model: nn.Module, batch: Batch, recipe: Recipe) -> int:
    """Count the bytes that one training step needs.

    They are those of parameters, gradients, the optimizer's state, buffers, and the tensors that the forward pass keeps
    for backward. The count takes the model's own precision without autocast, and masked weights like all others, so
    that a network has the same figure on every machine. Of optimizers whose state only a step shows, it is left out.

    Args:
        task: gives forward pass and loss.
        model: the network; it stays as it is.
        batch: inputs and targets of the step.
        recipe: gives the optimizer.

    Returns:
        Bytes.
    """
    states = states_known(task, recipe) or 0
    lasting = sum((2 + states if p.requires_grad else 1) * p.nbytes for p in model.parameters())
    lasting += sum(buffer.nbytes for buffer in model.buffers())

    def saved_bytes(twin: nn.Module, batch: Batch) -> int:
        storages: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.layout == torch.strided:  # sparse tensors have no storage of their own
                storage = tensor.untyped_storage()
                storages[storage_key(storage)] = storage
            return tensor.detach()  # an operation that kept its own result would hold itself for good

        with recomputable(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            task.loss(task.forward(twin, batch[0]), batch[1])
        # By storage and not by tensor, since views share theirs; parameters and buffers are counted already.
        counted = {storage_key(tensor.untyped_storage()) for tensor in (*twin.parameters(), *twin.buffers())}
        return sum(storage.nbytes() for key, storage in storages.items() if key not in counted)

    return lasting + on_a_twin(saved_bytes, task, model, batch)


def states_known(task: Task, recipe: Recipe) -> int | None:
    """How many tensors of state an optimizer keeps for each parameter; None if only a step shows it."""
    if own(task, "optimizer") is not None or recipe.options or recipe.optimizer not in ("sgd", "adam", "adamw"):
        return None
    return int(recipe.momentum > 0) if recipe.optimizer == "sgd" else 2
