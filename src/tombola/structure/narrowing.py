"""Cuts units out of the tensors of a network, and mends what its modules know of their sizes."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from tombola.structure.free_attention import free
from tombola.structure.layers import CONVOLUTIONS, NORMS, TRANSPOSED
from tombola.structure.modes import in_mode
from tombola.structure.placed_parts import Axes, Removed, axes_of_parts
from tombola.tickets import buffers_of, modules_of, parameters_of


def narrowed(tensor: Tensor, axes: Axes) -> Tensor:
    """A copy of a tensor with only the positions that stay, in its memory layout and on its device."""
    channels_last = _lies_channels_last(tensor)
    if not axes:
        return tensor.clone()
    for dim, positions in axes.items():
        tensor = tensor.index_select(dim, positions.to(tensor.device))  # a row-major copy, whatever the layout
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor


def _lies_channels_last(tensor: Tensor) -> bool:
    """Whether images or filters lie channels last; by strides, since those of one position are contiguous either way.

    Convolutions go by strides too, and PyTorch's backward pass can crash where the layouts of layers differ.
    """
    if tensor.ndim != 4:
        return False
    _, channels, height, width = tensor.shape
    return tensor.stride() == (height * width * channels, 1, width * channels, channels)


@torch.no_grad()
def narrow_parts(model: nn.Module, removed: Removed) -> None:
    """Cut units out of a network, in place.

    Args:
        model: the network.
        removed: all its parts, each with the units that go.
    """
    modules, tensors = modules_of(model), parameters_of(model) | buffers_of(model)
    for name, axes in axes_of_parts(removed, tensors).items():
        owner, _, attribute = name.rpartition(".")
        tensor, narrow = tensors[name], narrowed(tensors[name].detach(), axes)
        is_parameter = isinstance(tensor, nn.Parameter)
        setattr(modules[owner], attribute, nn.Parameter(narrow, tensor.requires_grad) if is_parameter else narrow)
        refit(modules[owner])
    fields: dict[tuple[int, str], set[int]] = {}
    configs: dict[int, Any] = {}
    for part, units in removed:
        left = part.size - len(units)
        for count in part.counts:
            place, _, field = count.attribute.rpartition(".")
            if place:
                config = getattr(modules[count.module], place)
                configs[id(config)] = config
                fields.setdefault((id(config), field), set()).add(count.base + count.factor * left)
            elif units:
                setattr(modules[count.module], count.attribute, count.base + count.factor * left)
        if units:
            for name in part.freed:
                free(modules[name])
            with in_mode(modules[part.owner], "train"), in_mode(modules[part.owner], "eval"):
                pass  # a network's own `train` may drop what it remembers, as LeViT's biases
    for (config, field), values in fields.items():
        # One field speaks for all layers; it can only be right where they are alike.
        if len(values) == 1:
            with contextlib.suppress(Exception):  # some configurations refuse what their class did not foresee
                setattr(configs[config], field, values.pop())


def refit(module: Any) -> None:
    """Set a module's attributes of size after its tensors have changed their shapes."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = weight.shape[1]
    elif isinstance(module, TRANSPOSED):
        module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, CONVOLUTIONS):
        depthwise = module.groups == module.in_channels == module.out_channels
        module.out_channels = weight.shape[0]
        module.groups = weight.shape[0] if depthwise else module.groups
        module.in_channels = weight.shape[1] * module.groups
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = len(weight)
    elif isinstance(module, NORMS):
        module.num_features = len(weight)
    elif weight.ndim == 2 and hasattr(module, "nx") and hasattr(module, "nf"):
        module.nx, module.nf = weight.shape
