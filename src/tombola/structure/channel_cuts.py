"""Cuts channels out of the layers of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.structure.channel_map import moves_channels
from tombola.structure.layers import NORMS, is_depthwise, is_transposed, scale_axis
from tombola.structure.layers import channels as channels_of
from tombola.structure.narrowing import narrowed, refit
from tombola.structure.partial_norm import PartialNorm, norm_form
from tombola.structure.placed_parts import Axes
from tombola.structure.recurrent_layers import hidden_axes, is_recurrent, mend_sizes, resize_recurrent
from tombola.structure.units import numbers_of
from tombola.structure.wiring import INPUTS, Wiring
from tombola.tickets import joined, modules_of, unwrapped
from tombola.tickets.torch_private import own_parameters


@dataclass(frozen=True)
class Kept:
    """The channels of a layer that stay, by their numbers in the whole network.

    Args:
        inputs: the input channels; None for a layer with one input for each output, as a norm.
        outputs: the output channels.
    """

    inputs: tuple[int, ...] | None
    outputs: tuple[int, ...]


def kept_channels(wiring: Wiring, removed: Mapping[str, Tensor]) -> dict[str, Kept]:
    """The channels that stay, by the name of each layer and norm that becomes smaller.

    Args:
        wiring: which channels feed which.
        removed: by group, which channels go; a group that is missing keeps all.
    """
    none, kept = torch.zeros(0, dtype=torch.bool), dict[str, Kept]()
    takes = {group.name: group.size for group in wiring.groups}
    for group in wiring.groups:
        inputs = group.name + INPUTS
        if group.name.endswith(INPUTS) or not (removed.get(group.name, none).any() or removed.get(inputs, none).any()):
            continue
        outputs, *own = (
            numbers_of(~removed[name]) if name in removed else tuple(range(takes[name]))
            for name in (group.name, inputs)
            if name in takes
        )
        kept[group.name] = Kept(own[0] if own else None, outputs)
        if group.name in wiring.norms:
            kept[wiring.norms[group.name]] = Kept(None, outputs)
    return kept


def channel_axes(model: nn.Module, kept: Mapping[str, Kept]) -> dict[str, Axes]:
    """The positions that stay in each parameter and buffer of layers that lose channels.

    Args:
        model: the whole network.
        kept: the channels that stay, by the layer's name.
    """
    modules = modules_of(model)
    axes: dict[str, Axes] = {}
    for name, channels in kept.items():
        if name not in modules:  # a parameter that scales channels, and belongs to no layer
            owner, _, own = name.rpartition(".")
            parameter = getattr(modules[owner], own)
            axis = scale_axis(parameter, parameter.shape[-1:])
            assert axis is not None
            axes[name] = {axis: torch.tensor(channels.outputs)}
            continue
        module = modules[name]
        for part, part_axes in _axes(module, channels).items():
            if getattr(module, part, None) is not None:
                axes[joined(name, part)] = part_axes
    return axes


def _axes(module: Any, kept: Kept) -> dict[str, Axes]:
    """The positions that stay in a layer's own tensors, by their names in the layer."""
    if moves_channels(module):
        return {}
    outputs = torch.tensor(kept.outputs)
    if is_recurrent(module):
        assert kept.inputs is not None
        return hidden_axes(module, kept.inputs, kept.outputs)
    if isinstance(module, NORMS) or norm_form(module) is not None:
        own = {part: getattr(module, part, None) for part in ("weight", "bias", "running_mean", "running_var")}
        return {part: {tensor.ndim - 1: outputs} for part, tensor in own.items() if tensor is not None}
    leaving = int(is_transposed(module))
    weight = {leaving: outputs}
    if kept.inputs is not None:
        weight[1 - leaving] = torch.tensor(kept.inputs)
        if getattr(module, "groups", 1) > 1:  # its second dimension counts the inputs of one group, alike in all
            weight[1] = torch.tensor(sorted({channel % module.weight.shape[1] for channel in kept.inputs}))
    return {"weight": weight, "bias": {0: outputs}}


@torch.no_grad()
def cut_channels(model: nn.Module, kept: Mapping[str, Kept], axes: Mapping[str, Axes]) -> None:
    """Cut channels out of layers, in place.

    Args:
        model: the network, from which other modules may be gone already.
        kept: the channels that stay, by the layer's name.
        axes: what `channel_axes` gives for the whole network.
    """
    modules = modules_of(model)
    recurrent: dict[str, Any] = {name: own for name, own in modules.items() if is_recurrent(own)}
    sizes = {name: own.hidden_size for name, own in recurrent.items()}
    parts: dict[str, list[str]] = {}
    for own in axes:
        owner, _, part = own.rpartition(".")
        parts.setdefault(owner, []).append(part)
    forms = {name: form for name in kept if (form := norm_form(modules.get(name))) is not None}  # while all are whole
    wholes = {name: getattr(modules[name], "whole", channels_of(modules[name])) for name in forms}
    for name, channels in kept.items():
        if name in axes and name not in modules:
            owner, _, own = name.rpartition(".")
            whole = getattr(modules[owner], own)
            _replace_parameter(model, whole, nn.Parameter(narrowed(whole, axes[name]), whole.requires_grad))
            continue
        module: Any = modules[name]
        if moves_channels(module):
            assert channels.inputs is not None
            replace_module(model, modules[name], module.kept(channels.inputs, channels.outputs))
            continue
        for part in parts.get(name, ()):
            tensor = getattr(module, part)
            narrow = narrowed(tensor, axes[joined(name, part)])
            is_parameter = isinstance(tensor, nn.Parameter)
            setattr(module, part, nn.Parameter(narrow, tensor.requires_grad) if is_parameter else narrow)
        if name in forms:
            partial = PartialNorm(module.weight, getattr(module, "bias", None), forms[name], wholes[name])
            replace_module(model, modules[name], partial.train(module.training))
        else:
            _resize(module, channels)
    if sizes:
        mend_sizes(model, sizes)


def _replace_parameter(model: nn.Module, old: nn.Parameter, new: nn.Parameter) -> None:
    """Put a new parameter in every place of an old one, as an embedding and the last layer may hold the same."""
    for module in model.modules():
        for name, parameter in own_parameters(module).items():
            if parameter is old:
                setattr(module, name, new)
                refit(module)


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a new module in every place of an old one, in place of the wrappers around it too."""
    # A wrapper may hold a reference to the old module, so it is not enough to replace what it wraps.
    for parent in model.modules():
        for name, child in parent.named_children():
            if unwrapped(child) is old:
                setattr(parent, name, new)


def _resize(module: Any, kept: Kept) -> None:
    """Set a layer's attributes for its size after its tensors have shrunk."""
    size = len(kept.outputs)
    if is_recurrent(module):
        resize_recurrent(module, len(kept.inputs or ()), size)
    elif isinstance(module, nn.Linear):
        module.in_features, module.out_features = module.weight.shape[1], size
    elif hasattr(module, "nf"):  # GPT-2's `Conv1D`
        module.nx, module.nf = module.weight.shape[0], size
    elif isinstance(module, nn.GroupNorm):
        # Whole groups are cut, so that the channels of a group stay as many.
        module.num_groups = module.num_groups * size // module.num_channels
        module.num_channels = size
    elif isinstance(module, NORMS):
        module.num_features = size
    elif isinstance(module, nn.PReLU):
        module.num_parameters = size
    elif is_depthwise(module):
        module.in_channels = module.out_channels = module.groups = size
    else:
        taken = kept.inputs or ()
        module.groups = max(1, len(taken) // module.weight.shape[1]) if module.groups > 1 else 1
        module.in_channels, module.out_channels = len(taken), size
