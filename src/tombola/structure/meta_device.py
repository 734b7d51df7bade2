"""A copy of a network that has shapes and no values, and calls of it.

On the meta device nothing is computed. But torch works out the shapes of some operations in Python, which takes longer
than computing small tensors would. A dispatch mode, whose module is private to torch, answers for these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import nn

from tombola.doors import Door
from tombola.tickets import copied

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
    # On a GPU, a copy would take the model's memory once more.
    shapes = {id(t): t.detach().to("meta") for t in chain(model.parameters(), model.buffers())}
    shapes |= {id(p): nn.Parameter(shapes[id(p)], p.requires_grad) for p in model.parameters()}
    return copied(model, shapes)


def quick_shapes() -> AbstractContextManager[Any]:
    """While it lasts, the usual operations on the meta device give their shapes without torch's detour.

    What does not fit is left to torch, which says so.

    Examples:
        >>> with quick_shapes():
        ...     nn.BatchNorm1d(3, device="meta")(torch.empty(2, 3, device="meta")).shape
        torch.Size([2, 3])
    """
    from torch.utils import _python_dispatch  # slow, and needed for traces only

    class QuickShapes(DOOR.part(_python_dispatch, "TorchDispatchMode")):
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return result_of(operation, args, kwargs or {})

    return QuickShapes()


def result_of(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operation gives; on the meta device the usual ones give their shapes without torch's detour."""
    answer = _answers().get(operation)
    result = answer(*args, **kwargs) if answer is not None and args[0].is_meta else NotImplemented
    return operation(*args, **kwargs) if result is NotImplemented else result


@cache
def _answers() -> dict[Any, Callable[..., Any]]:
    aten = torch.ops.aten
    inplace = [own for name in ELEMENTWISE if (own := getattr(aten, f"{name}_", None)) is not None]
    return {
        **{getattr(aten, name).default: lambda x, *_, **__: torch.empty_like(x) for name in ELEMENTWISE},
        **{own.default: lambda x, *_, **__: x for own in inplace},
        **{own: _of_two for own in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.mul.Scalar)},
        aten.native_batch_norm.default: _normed,
        aten.native_layer_norm.default: _normed_along,
        aten.addmm.default: _affine,
        aten._safe_softmax.default: lambda x, _, dtype=None: torch.empty_like(x, dtype=dtype),
        aten.mean.dim: _mean,
        aten.convolution.default: _convolved,
    }


def _normed(x: torch.Tensor, *settings: Any) -> tuple[torch.Tensor, ...]:
    """The result of a batch norm, and the statistics that its backward pass takes, which evaluation has none of."""
    training = settings[4]
    return torch.empty_like(x), *(x.new_empty(x.shape[1] if training else 0) for _ in range(2))


def _normed_along(x: torch.Tensor, shape: Sequence[int], *_: Any) -> Any:
    if tuple(x.shape[x.ndim - len(shape) :]) != tuple(shape):
        return NotImplemented
    before = (*x.shape[: x.ndim - len(shape)], *(1 for _ in shape))
    return x.new_empty(x.shape), *(x.new_empty(before) for _ in range(2))


def _of_two(x: torch.Tensor, y: Any, **_: Any) -> Any:
    kind = torch.result_type(x, y)
    if not isinstance(y, torch.Tensor) or y.ndim == 0 or y.shape == x.shape:
        return torch.empty_like(x, dtype=kind)
    shape = torch.broadcast_shapes(x.shape, y.shape)
    largest = next((own for own in (x, y) if own.is_meta and own.shape == shape), None)
    return NotImplemented if largest is None else torch.empty_like(largest, dtype=kind)


def _affine(bias: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, **_: Any) -> Any:
    return x.new_empty(x.shape[0], weight.shape[1]) if x.shape[1] == weight.shape[0] else NotImplemented


def _mean(x: torch.Tensor, dims: Sequence[int] | None, keep: bool = False, *, dtype: Any = None) -> Any:
    if not dims:
        return NotImplemented
    gone = {dim % x.ndim for dim in dims}
    shape = [1 if axis in gone else size for axis, size in enumerate(x.shape) if keep or axis not in gone]
    return x.new_empty(shape, dtype=dtype)


def _convolved(x: torch.Tensor, weight: torch.Tensor, bias: Any, *settings: Any) -> Any:
    stride, padding, dilation, transposed, _, groups = settings
    fits = x.ndim == weight.ndim and x.shape[1] == weight.shape[1] * groups
    if transposed or not fits or not x.is_contiguous():
        return NotImplemented
    given = (
        x.shape[2:],
        weight.shape[2:],
        *(own * (x.ndim - 2) if len(own) == 1 else own for own in (stride, padding, dilation)),
    )
    places = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in zip(*given, strict=True)]
    return x.new_empty(x.shape[0], weight.shape[0], *places) if min(places) > 0 else NotImplemented
