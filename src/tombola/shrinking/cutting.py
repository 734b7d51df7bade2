"""Cutting channels out of layers, and the same channels out of their optimizer's state."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.structure import NORMS, TRANSPOSED, ChannelMap, is_depthwise, parts_of, recount
from tombola.tickets import modules_of, parameters_of, unwrapped

Axes = dict[int, Tensor]
"""By dimension of a tensor, the positions that stay."""


@dataclass(frozen=True)
class Kept:
    """What stays of a layer: its input and output channels, by their numbers in the whole network.

    inputs is None where a layer passes its channels through one by one.
    """

    inputs: tuple[int, ...] | None
    outputs: tuple[int, ...]


def axes_of(model: nn.Module, kept: Mapping[str, Kept]) -> dict[str, Axes]:
    """What stays of each parameter and buffer, by its name; those that stay whole are left out."""
    named = modules_of(model)
    found: dict[str, Axes] = {}
    for name, own in kept.items():
        module = named[name]
        for part, axes in _axes(module, own).items():
            tensor = getattr(module, part, None)
            if tensor is not None:
                found[f"{name}.{part}" if name else part] = axes
    return found


def _axes(module: nn.Module, kept: Kept) -> dict[str, Axes]:
    if isinstance(module, ChannelMap):
        return {}
    outputs = torch.tensor(kept.outputs)
    if isinstance(module, NORMS):
        return {part: {0: outputs} for part in ("weight", "bias", "running_mean", "running_var")}
    if kept.inputs is None or getattr(module, "groups", 1) > 1:
        return {"weight": {0: outputs}, "bias": {0: outputs}}
    inputs = torch.tensor(kept.inputs)
    first, second = (inputs, outputs) if isinstance(module, TRANSPOSED) else (outputs, inputs)
    return {"weight": {0: first, 1: second}, "bias": {0: outputs}}


def narrowed(tensor: Tensor, axes: Axes) -> Tensor:
    """A copy of the positions that stay, in the tensor's memory layout and on its device."""
    for dim, positions in axes.items():
        tensor = tensor.index_select(dim, positions.to(tensor.device))
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.clone(memory_format=torch.channels_last)
    return tensor.clone()


@torch.no_grad()
def cut(model: nn.Module, kept: Mapping[str, Kept], idle: Collection[str] = ()) -> nn.Module:
    """A copy of the model without the channels that do not stay and the idle blocks; layers keep their classes."""
    small = copy.deepcopy(model)
    whole = modules_of(small)
    for name in idle:
        replace(small, whole[name], nn.Identity())
    named = modules_of(small)
    axes = axes_of(small, kept)
    for name, own in kept.items():
        module = named[name]
        if isinstance(module, ChannelMap):
            assert own.inputs is not None
            replace(small, module, module.kept(own.inputs, own.outputs))
            continue
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(module, part, None)
            if tensor is None:
                continue
            less = narrowed(tensor, axes[f"{name}.{part}" if name else part])
            is_parameter = isinstance(tensor, nn.Parameter)
            setattr(module, part, nn.Parameter(less, tensor.requires_grad) if is_parameter else less)
        _resize(module, own)
    for heads in (own for own in parts_of(model) if own.kind == "head" and own.makes[0] in kept):
        recount(small, heads, len(kept[heads.makes[0]].outputs) // heads.width)
    return small


def within(name: str, blocks: Collection[str]) -> bool:
    """Whether what has this name lies in one of the blocks."""
    return any(name.startswith(f"{block}.") for block in blocks)


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put another module where one stands, and what is wrapped around it, whose code may hold on to the old one."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if unwrapped(child) is old:
                setattr(parent, name, new)


def _resize(module: Any, kept: Kept) -> None:
    """Make a layer's own account of its size true again."""
    size = len(kept.outputs)
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = module.weight.shape[1], size
    elif isinstance(module, nn.GroupNorm):
        module.num_groups = module.num_groups * size // module.num_channels
        module.num_channels = size
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = (size,)
    elif isinstance(module, NORMS):
        module.num_features = size
    elif is_depthwise(module):
        module.in_channels = module.out_channels = module.groups = size
    else:
        if module.groups > 1:
            module.groups = module.groups * size // module.out_channels
        module.in_channels, module.out_channels = len(kept.inputs or ()), size


@torch.no_grad()
def move_optimizer(optimizer: Optimizer, model: nn.Module, small: nn.Module, kept: Mapping[str, Kept]) -> None:
    """Let an optimizer of the model train the smaller one, with what it knows of the channels that stay."""
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TombolaError("L-BFGS remembers all parameters as one vector, which cannot be cut; make a new one")
    axes, mine = axes_of(model, kept), parameters_of(model)
    others = parameters_of(small)
    names = {parameter: name for name, parameter in mine.items()}
    for group in optimizer.param_groups:
        foreign = next((p for p in group["params"] if p not in names), None)
        if foreign is not None:
            raise TombolaError(
                f"the optimizer holds a parameter of shape {tuple(foreign.shape)} that is not this model's; "
                "make it from model.parameters()"
            )
    for old, name in names.items():
        state = optimizer.state.get(old, {})
        odd = next((key for key, own in state.items() if _is_factored(own, old)), None)
        if odd and name in axes:
            raise TombolaError(
                f"the optimizer's '{odd}' of '{name}' does not have its parameter's shape, so it cannot be cut; "
                "shrink without optimizer= and make a new one"
            )
    for group in optimizer.param_groups:
        group["params"][:] = [others[names[own]] for own in group["params"] if names[own] in others]
    for old, name in names.items():
        state = optimizer.state.pop(old, None)
        if state is not None and name in others:
            optimizer.state[others[name]] = {
                key: narrowed(own, axes[name]) if name in axes and _has_shape(own, old) else own
                for key, own in state.items()
            }


def _has_shape(state: Any, parameter: Tensor) -> bool:
    return isinstance(state, Tensor) and state.shape == parameter.shape


def _is_factored(state: Any, parameter: Tensor) -> bool:
    parts: Sequence[Any] = state if isinstance(state, list | tuple) else [state]
    return any(isinstance(p, Tensor) and p.numel() > 1 and p.shape != parameter.shape for p in parts)
