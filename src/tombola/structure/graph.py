"""One forward pass of a copy of a network, and the graph of its operations."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.nested import mapped, tensors_in
from tombola.structure.channel_map import ChannelMap
from tombola.structure.meta_device import meta_twin, quick_shapes
from tombola.structure.outputs import outputs_in
from tombola.structure.torch_pruning import Operation, operations_of
from tombola.tickets import bare, check_whole, recomputable

Probe = Callable[[nn.Module], Any]
"""Calls a model on an example of its inputs."""


@dataclass(frozen=True)
class Traced:
    """What one forward pass of a network showed.

    Args:
        twin: the copy of the network that was called, in evaluation mode.
        operations: the operations of the graph, by module.
        outputs: the network's outputs that have a gradient.
        calls: how often each module was called.
        untraced: whether a layer took, or the network gave, floating-point numbers whose origin is not in the graph.
    """

    twin: nn.Module
    operations: dict[nn.Module, Operation]
    outputs: list[Tensor]
    calls: Counter[nn.Module]
    untraced: bool


def traced(model: nn.Module, probe: Probe) -> Traced:
    """Call a copy of the model and read the graph of its operations.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.

    Raises:
        TombolaError: if the call fails or gives no tensor with a gradient.
    """
    check_whole(model, "a trace of its channels")
    # On the meta device nothing is computed; a network whose path depends on values needs a device that has them.
    for copied in (meta_twin, copy.deepcopy):
        try:
            return _trace(bare(copied(model)).eval().requires_grad_(True), probe)
        except TombolaError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    raise TombolaError(f"the network's channels could not be traced ({reason}); prune weights instead of channels")


def _trace(twin: nn.Module, probe: Probe) -> Traced:
    maps = {type(module): _sizes for module in twin.modules() if isinstance(module, ChannelMap)}
    outputs: list[Tensor] = []
    calls: Counter[nn.Module] = Counter()
    untraced = False

    def forward() -> list[Tensor]:
        nonlocal untraced
        results = outputs_in(probe(twin))
        outputs.extend(result for result in results if result.grad_fn is not None)
        untraced |= any(result.grad_fn is None and result.is_floating_point() for result in results)
        if not outputs:
            raise TombolaError("the network gives no tensor from which its channels could be traced; prune weights")
        return outputs

    def count(module: nn.Module, args: Any, kwargs: Any, _: Any) -> None:
        nonlocal untraced
        calls.update([module])
        if any(True for _ in module.parameters(recurse=False)):
            untraced |= any(t.is_floating_point() and not t.requires_grad for t in tensors_in((args, kwargs)))

    twin.register_forward_pre_hook(lambda _, args, kwargs: (_traceable(args), _traceable(kwargs)), with_kwargs=True)
    for module in twin.modules():
        module.register_forward_hook(count, with_kwargs=True)
    on_meta = any(parameter.is_meta for parameter in twin.parameters())
    with (
        recomputable(),
        quick_shapes() if on_meta else nullcontext(),
    ):  # a reentrant checkpoint would hide what is computed in it
        operations = operations_of(twin, forward, maps)
    return Traced(twin, operations, outputs, calls, untraced)


def _sizes(module: ChannelMap) -> tuple[int, int]:
    return module.inputs, len(module.sources)


def _traceable(inputs: Any) -> Any:
    """A network's inputs as leaves of its graph, so that whatever comes from them has a known origin."""
    return mapped(inputs, lambda tensor: tensor.detach().requires_grad_(tensor.is_floating_point()))
