"""Cuts channels out of layers, and the same channels out of an optimizer's state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.shrinking.silent_layers import Silence, silent_layer
from tombola.structure import (
    Axes,
    Kept,
    Passing,
    Removed,
    axes_of_parts,
    channel_axes,
    cut_channels,
    narrow_parts,
    narrowed,
    pass_through,
    renumber_caches,
    replace_module,
)
from tombola.tickets import buffers_of, copied, modules_of, parameters_of


def axes_of(model: nn.Module, kept: Mapping[str, Kept], parts: Removed = ()) -> dict[str, Axes]:
    """The positions that stay in each parameter and buffer.

    Args:
        model: the whole network.
        kept: the channels that stay, by the layer's name.
        parts: heads and other units of parts that go.

    Returns:
        The axes by the tensor's name; tensors that stay whole are left out.
    """
    axes = channel_axes(model, kept)
    tensors = parameters_of(model) | buffers_of(model) if parts else {}
    for name, part_axes in axes_of_parts(parts, tensors).items():
        axes[name] = axes.get(name, {}) | part_axes
    return axes


NONE: Mapping[str, Passing] = {}


@torch.no_grad()
def cut(
    model: nn.Module,
    kept: Mapping[str, Kept],
    idle: Collection[str] = (),
    parts: Removed = (),
    passes: Mapping[str, Passing] = NONE,
    silent: Collection[Silence] = (),
) -> nn.Module:
    """A copy of a model with fewer channels.

    Its layers keep their classes, but for `torch.nn.MultiheadAttention`, and norms of streams that are narrower.

    Args:
        model: the whole network, which is not changed.
        kept: the channels that stay, by the layer's name; other layers stay whole.
        idle: names of residual blocks that become identities.
        parts: heads and other units of parts that go.
        passes: how idle blocks are called that take or give more than one tensor.
        silent: feed-forward parts that go whole.

    Returns:
        The smaller network.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> cut(model, {"0": Kept((0, 1, 2, 3), (0, 2)), "1": Kept((0, 2), (0, 1))})
        Sequential(
          (0): Linear(in_features=4, out_features=2, bias=True)
          (1): Linear(in_features=2, out_features=2, bias=True)
        )
    """
    tensors = parameters_of(model, remove_duplicate=False)
    places = Counter(map(id, tensors.values()))
    axes = axes_of(model, kept)
    replaced = [tensors[name] for name in axes if name in tensors]  # by narrow copies, below
    small = copied(model, {id(tensor): tensor for tensor in replaced if places[id(tensor)] == 1})
    if idle:
        modules = modules_of(small)
        for name in idle:
            replace_module(small, modules[name], pass_through(modules[name], passes.get(name)))
        renumber_caches(small, idle)
    cut_channels(small, kept, axes)
    if parts:
        narrow_parts(small, parts)
    modules = modules_of(small) if silent else {}
    for part in silent:
        for name in (*part.makes, part.takes):
            replace_module(small, modules[name], silent_layer(modules[name], part, name))
    return small


def within(name: str, blocks: Collection[str]) -> bool:
    """Whether a parameter or module of this name lies inside one of the blocks.

    Examples:
        >>> within("layer1.0.conv1.weight", ["layer1.0"]), within("layer1.0", ["layer1.0"])
        (True, False)
    """
    return any(name.startswith(f"{block}.") for block in blocks)


@torch.no_grad()
def move_optimizer(optimizer: Optimizer, model: nn.Module, small: nn.Module, axes: Mapping[str, Axes]) -> None:
    """Move an optimizer from a model to the smaller one, in place, with its state for the channels that stay.

    Args:
        optimizer: an optimizer of the model's parameters.
        model: the whole network.
        small: the network that `cut` made of it.
        axes: the positions that stay in each tensor that is smaller now.

    Raises:
        TombolaError: the optimizer is another model's, or its state cannot be cut; then nothing has changed.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TombolaError("L-BFGS remembers all parameters as one vector, which cannot be cut; make a new one")
    small_parameters = parameters_of(small)
    names = {parameter: name for name, parameter in parameters_of(model).items()}
    # All checks come first, so that an error leaves the optimizer as it was.
    for group in optimizer.param_groups:
        foreign = next((p for p in group["params"] if p not in names), None)
        if foreign is not None:
            raise TombolaError(
                f"the optimizer holds a parameter of shape {tuple(foreign.shape)} that is not this model's; "
                "make it from model.parameters()"
            )
    for old, name in names.items():
        state = optimizer.state.get(old, {})
        factored = next((key for key, value in state.items() if _is_factored(value, old)), None)
        if factored and name in axes:
            raise TombolaError(
                f"the optimizer's '{factored}' of '{name}' does not have its parameter's shape, so it cannot be cut; "
                "shrink without optimizer= and make a new one"
            )
    for group in optimizer.param_groups:
        # Parameters of idle blocks have no counterpart.
        group["params"][:] = [small_parameters[names[p]] for p in group["params"] if names[p] in small_parameters]
    for old, name in names.items():
        state = optimizer.state.pop(old, None)
        if state is not None and name in small_parameters:
            optimizer.state[small_parameters[name]] = {
                key: narrowed(value, axes[name]) if name in axes and _has_shape(value, old) else value
                for key, value in state.items()
            }


def _has_shape(state: Any, parameter: Tensor) -> bool:
    return isinstance(state, Tensor) and state.shape == parameter.shape


def _is_factored(state: Any, parameter: Tensor) -> bool:
    """Whether a state is neither one number nor of the parameter's shape, as Adafactor's rows and columns."""
    parts: Sequence[Any] = state if isinstance(state, list | tuple) else [state]
    return any(isinstance(p, Tensor) and p.numel() > 1 and p.shape != parameter.shape for p in parts)
