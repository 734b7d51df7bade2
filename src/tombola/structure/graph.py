"""One forward pass of a network's twin, and the graph of its operations."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.structure.channel_map import ChannelMap
from tombola.structure.torch_pruning import Operation, operations_of
from tombola.tickets import bare, device_of

Probe = Callable[[nn.Module], Any]
"""Calls a model on an example of its inputs."""


@dataclass(frozen=True)
class Traced:
    """A twin of a network in evaluation mode, its operations by module, what it gave, how often it called what.

    untraced: whether a layer was given, or the network gave, numbers with a fraction whose origin is not in the graph.
    """

    twin: nn.Module
    operations: dict[nn.Module, Operation]
    outputs: list[Tensor]
    calls: Counter[nn.Module]
    untraced: bool


def traced(model: nn.Module, probe: Probe) -> Traced:
    """Call a twin of the model without values, or with them where the model needs to see values."""
    for device in (torch.device("meta"), device_of(model)):
        try:
            return _trace(bare(copy.deepcopy(model)).to(device).eval().requires_grad_(True), probe)
        except TombolaError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    raise TombolaError(f"the network's channels could not be traced ({reason}); prune weights instead of channels")


def _trace(twin: nn.Module, probe: Probe) -> Traced:
    movers = {type(module): _sizes for module in twin.modules() if isinstance(module, ChannelMap)}
    outputs: list[Tensor] = []
    calls: Counter[nn.Module] = Counter()
    untraced = False

    def forward() -> list[Tensor]:
        nonlocal untraced
        given = tensors_in(probe(twin))
        outputs.extend(own for own in given if own.grad_fn is not None)
        untraced |= any(own.grad_fn is None and own.is_floating_point() for own in given)
        if not outputs:
            raise TombolaError("the network gives no tensor from which its channels could be traced; prune weights")
        return outputs

    def called(module: nn.Module, args: Any, kwargs: Any, _: Any) -> None:
        nonlocal untraced
        calls.update([module])
        if any(True for _ in module.parameters(recurse=False)):
            untraced |= any(own.is_floating_point() and not own.requires_grad for own in tensors_in((args, kwargs)))

    twin.register_forward_pre_hook(lambda _, args, kwargs: (_traceable(args), _traceable(kwargs)), with_kwargs=True)
    for module in twin.modules():
        module.register_forward_hook(called, with_kwargs=True)
    operations = operations_of(twin, forward, movers)
    return Traced(twin, operations, outputs, calls, untraced)


def _sizes(module: ChannelMap) -> tuple[int, int]:
    return module.inputs, len(module.sources)


def _traceable(inputs: Any) -> Any:
    """A network's inputs as leaves of its graph, so that whatever comes from them has a known origin."""
    if isinstance(inputs, Tensor):
        return inputs.detach().requires_grad_(inputs.is_floating_point())
    if isinstance(inputs, dict):
        return {key: _traceable(own) for key, own in inputs.items()}
    return tuple(_traceable(own) for own in inputs) if isinstance(inputs, tuple | list) else inputs


def tensors_in(result: Any) -> list[Tensor]:
    """The tensors of whatever a network returns: one, or any nest of sequences and mappings."""
    if isinstance(result, Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result if isinstance(result, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]
