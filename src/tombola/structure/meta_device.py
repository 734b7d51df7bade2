"""A copy of a network that has shapes and no values, and calls of it.

On the meta device nothing is computed. But torch works out the shapes of some operations in Python, which takes longer
than computing small tensors would. A dispatch mode, whose module is private to torch, answers for these.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import nn

from tombola.doors import Door

DOOR = Door("torch", ">=2.6,<2.14", "structure/meta_device.py")

ELEMENTWISE = ("relu", "hardtanh", "silu", "hardswish", "hardsigmoid", "sigmoid", "gelu", "leaky_relu", "elu", "mish")
"""Operations of one tensor whose result has its shape; some exist in place too."""


def meta_twin(model: nn.Module) -> nn.Module:
    """A copy of a network on the meta device; its tensors are never copied, wherever they lie.

    Args:
        model: the network; it stays as it is.

    Examples:
        >>> meta_twin(nn.Linear(2, 3)).weight.device
        device(type='meta')
    """
    # `deepcopy` takes what it finds here in place of a copy: on a GPU, one would take the model's memory once more.
    shapes = {id(t): t.detach().to("meta") for t in chain(model.parameters(), model.buffers())}
    shapes |= {id(p): nn.Parameter(shapes[id(p)], p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, shapes)


def quick_shapes() -> AbstractContextManager[Any]:
    """While it lasts, activations and batch norms on the meta device give their shapes without torch's detour.

    Examples:
        >>> with quick_shapes():
        ...     nn.BatchNorm1d(3, device="meta")(torch.empty(2, 3, device="meta")).shape
        torch.Size([2, 3])
    """
    from torch.utils import _python_dispatch  # slow, and needed for traces only

    answers = _answers()

    class QuickShapes(DOOR.part(_python_dispatch, "TorchDispatchMode")):
        def __torch_dispatch__(
            self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            answer = answers.get(operation)
            if answer is None or not args[0].is_meta:
                return operation(*args, **(kwargs or {}))
            return answer(*args)

    return QuickShapes()


@cache
def _answers() -> dict[Any, Callable[..., Any]]:
    aten = torch.ops.aten
    inplace = [own for name in ELEMENTWISE if (own := getattr(aten, f"{name}_", None)) is not None]
    return {
        **{getattr(aten, name).default: lambda x, *_: torch.empty_like(x) for name in ELEMENTWISE},
        **{own.default: lambda x, *_: x for own in inplace},
        aten.native_batch_norm.default: _normed,
    }


def _normed(x: torch.Tensor, *settings: Any) -> tuple[torch.Tensor, ...]:
    """The result of a batch norm, and the statistics that its backward pass takes, which evaluation has none of."""
    training = settings[4]
    return torch.empty_like(x), *(x.new_empty(x.shape[1] if training else 0) for _ in range(2))
