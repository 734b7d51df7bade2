"""Private parts of torch that Tombola uses, apart from those of traces and wrappers. No other file touches them.

They are the same in torch 2.6 to 2.13, the versions that are tested. pyproject.toml therefore bounds torch at the next
minor version; a contract test says whether the bound can be raised. `structure/tracer.py` knows dispatch modes,
`tickets/wrappers.py` wrappers and FSDP. `torch._foreach_*`, on which torch's own optimizers rest, are called where they
are needed to add up gradients; the contract test covers them too.
"""

from __future__ import annotations

import platform
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from tombola.doors import Door

DOOR = Door("torch", ">=2.6,<2.14", "tickets/torch_private.py")

FOREACH = ("_foreach_add", "_foreach_add_", "_foreach_addcmul_", "_foreach_mul", "_foreach_sub")
"""The functions of torch for many tensors at once that scores call."""

NormWithStatistics: type[nn.Module] = DOOR.part(nn, "modules.batchnorm._NormBase")
"""Norms that can track statistics: batch norms and instance norms of all dimensions."""

Dropout: type[nn.Module] = DOOR.part(nn, "modules.dropout._DropoutNd")
"""All kinds of dropout."""

CPU_ATTENTION: Any = DOOR.part(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")
CPU_ATTENTION_BACKWARD: Any = DOOR.part(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward")
"""Attention as the processor computes it, which torch's own counter of FLOPs does not know."""

CPU_LSTM: Any = DOOR.part(torch.ops.aten, "mkldnn_rnn_layer")
CPU_LSTM_BACKWARD: Any = DOOR.part(torch.ops.aten, "mkldnn_rnn_layer_backward")
CUDA_RECURRENT: Any = DOOR.part(torch.ops.aten, "_cudnn_rnn")
CUDA_RECURRENT_BACKWARD: Any = DOOR.part(torch.ops.aten, "_cudnn_rnn_backward")
"""Recurrent layers as one operation, which it does not know either."""


def leave_fused_path(attention: nn.MultiheadAttention) -> None:
    """Let torch's encoder layers call an attention, and not their fused operation, which takes its parameters."""
    attention._qkv_same_embed_dim = False


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """A module's children by their names, in its order; writing to the dictionary changes the module.

    Unlike `named_children`, it lists a child under each of its names, and names whose child is None.
    """
    return _table(module, "_modules")


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The parameters that a module itself holds; a weight that each call computes anew is not among them."""
    return _table(module, "_parameters")


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The buffers that a module itself holds, those included that no checkpoint contains."""
    return _table(module, "_buffers")


def _table(module: nn.Module, name: str) -> dict[str, Any]:
    """A module's table of this name: asked too often for a search along a path, which TorchScript's modules need."""
    own = vars(module).get(name)
    return DOOR.part(module, name) if own is None else own


def version_of(tensor: Tensor | None) -> int:
    """How often a tensor was changed in place; 0 for None."""
    return 0 if tensor is None else DOOR.part(tensor, "_version")


class NotReentrant:
    """Stands for the reentrant kind of activation checkpointing, and computes as the other kind does."""

    @staticmethod
    def apply(function: Any, preserve_rng_state: bool, *args: Any) -> Any:
        return checkpoint.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)


_inside, _lock = [], Lock()


@contextmanager
def without_reentrance() -> Generator[None]:
    """Inside, `torch.utils.checkpoint` computes as with `use_reentrant=False`, whatever a network asks for."""
    with _lock:  # several threads may be inside, and the last one puts torch's own back
        _inside.append(DOOR.part(checkpoint, "CheckpointFunction"))
        checkpoint.CheckpointFunction = NotReentrant  # ty: ignore[invalid-assignment]
    try:
        yield
    finally:
        with _lock:
            first = _inside[0]
            _inside.pop()
            if not _inside:
                checkpoint.CheckpointFunction = first


def transient_buffers(module: nn.Module) -> set[str]:
    """The names of a module's own buffers that no checkpoint contains."""
    return DOOR.part(module, "_non_persistent_buffers_set")


def is_hooked(module: nn.Module) -> bool:
    """Whether a module has a hook that runs before or after its forward pass, or in its backward pass."""
    return any(DOOR.part(module, f"_{name}") for name in ("forward_hooks", "forward_pre_hooks", "backward_hooks"))


def gradient_hooks(parameter: Tensor) -> list[Any]:
    """The hooks that run when a parameter's gradient has been accumulated."""
    return list((DOOR.part(parameter, "_post_accumulate_grad_hooks") or {}).values())


def steps_in_backward(parameter: Tensor) -> bool:
    """Whether torch has fused an optimizer of this parameter into the backward pass."""
    return hasattr(parameter, "_in_backward_optimizers")


def runs_step_hooks(optimizer: Any) -> bool:
    """Whether hooks of this object run when it steps; a wrapper of an optimizer may be an Optimizer without them."""
    hooked = getattr(getattr(type(optimizer), "step", None), "hooked", False)
    return hooked and hasattr(optimizer, "_optimizer_step_post_hooks")


def multiply_(tensors: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
    """Multiply each tensor by its factor, in place; on a GPU in one piece of work."""
    DOOR.part(torch, "_foreach_mul_")(tensors, factors)


def writes_to(tensor: torch.Tensor) -> int:
    """How often a tensor's memory was written to in place, as torch counts for autograd; `tensor.data` is not seen."""
    return tensor._version  # asked at each step: too often for the door


def storage_key(storage: torch.UntypedStorage) -> int:
    """A number that identifies a storage while it lives, also on the meta device, where every address is 0."""
    return DOOR.part(storage, "_cdata")


def cpu_has_bf16() -> bool:
    """Whether this processor has instructions for bfloat16.

    oneDNN says that it computes in bfloat16 on x86 processors without them, too. It emulates it there, and a training
    step takes two to four times as long as in float32.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        return DOOR.part(torch, "cpu._is_avx512_bf16_supported", "torch")()
    return DOOR.part(torch, "ops.mkldnn._is_mkldnn_bf16_supported", "torch")()
