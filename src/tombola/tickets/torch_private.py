"""What torch does not promise and Tombola uses, outside of traces and wrappers. Of it, this file alone knows.

Everything here is in torch 2.6 to 2.13, the versions that are tested, hence the bound at the next minor version in
pyproject.toml: where a name changes, the contract test says so before the bound is raised. Autograd's records are
`structure/autograd.py`'s, wrappers and FSDP `tickets/wrappers.py`'s. `torch._foreach_*`, on which torch's own
optimizers rest and with which scores add up gradients, are called by these names where they are needed; the contract
test has them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tombola.doors import Door

DOOR = Door("torch", ">=2.6,<2.14", "tickets/torch_private.py")

FOREACH = ("_foreach_add", "_foreach_add_", "_foreach_addcmul_", "_foreach_mul", "_foreach_sub")
"""What scores call of torch for many tensors at once."""

NormWithStatistics: type[nn.Module] = DOOR.part(nn, "modules.batchnorm._NormBase")
"""Norms that can track statistics: batch norms and instance norms of all dimensions."""

Dropout: type[nn.Module] = DOOR.part(nn, "modules.dropout._DropoutNd")
"""All kinds of dropout."""


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """A module's children by their names, in its order and one under each of its names; setting one puts it there.

    Unlike `named_children`, with what is not there and with what is there twice, and in place.
    """
    return DOOR.part(module, "_modules")


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """What a module itself holds as parameters; a weight that is computed anew in each call is none of them."""
    return DOOR.part(module, "_parameters")


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """What a module itself holds as buffers, those too that no checkpoint holds."""
    return DOOR.part(module, "_buffers")


def is_hooked(module: nn.Module) -> bool:
    """Whether something runs when a module is called, before or after or in its backward pass."""
    return any(DOOR.part(module, f"_{name}") for name in ("forward_hooks", "forward_pre_hooks", "backward_hooks"))


def gradient_hooks(parameter: Tensor) -> list[Any]:
    """What runs when a parameter's gradient is ready."""
    return list((DOOR.part(parameter, "_post_accumulate_grad_hooks") or {}).values())


def steps_in_backward(parameter: Tensor) -> bool:
    """Whether torch has fused an optimizer of this parameter into the backward pass."""
    return hasattr(parameter, "_in_backward_optimizers")


def storage_key(storage: torch.UntypedStorage) -> int:
    """A number that is one storage's while it lives, on the meta device too, where all have the address 0."""
    return DOOR.part(storage, "_cdata")


def cpu_has_bf16() -> bool:
    """Whether oneDNN has bfloat16 on this processor."""
    return DOOR.part(torch, "ops.mkldnn._is_mkldnn_bf16_supported", "torch")()
