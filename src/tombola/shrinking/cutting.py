"""Cuts channels out of layers, and the same channels out of an optimizer's state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.shrinking.silent_layers import Silence, silent_layer
from tombola.structure import (
    NORMS,
    Axes,
    Passing,
    Removed,
    axes_of_parts,
    hidden_axes,
    is_depthwise,
    is_recurrent,
    is_transposed,
    mend_sizes,
    moves_channels,
    narrow_parts,
    narrowed,
    pass_through,
    renumber_caches,
    resize_recurrent,
    scale_axis,
)
from tombola.tickets import buffers_of, copied, joined, modules_of, parameters_of, unwrapped


@dataclass(frozen=True)
class Kept:
    """The channels of a layer that stay, by their numbers in the whole network.

    Args:
        inputs: the input channels; None for a layer with one input for each output, as a norm.
        outputs: the output channels.
    """

    inputs: tuple[int, ...] | None
    outputs: tuple[int, ...]


def axes_of(model: nn.Module, kept: Mapping[str, Kept], parts: Removed = ()) -> dict[str, Axes]:
    """The positions that stay in each parameter and buffer.

    Args:
        model: the whole network.
        kept: the channels that stay, by the layer's name.
        parts: heads and other units of parts that go.

    Returns:
        The axes by the tensor's name; tensors that stay whole are left out.
    """
    modules, parameters = modules_of(model), parameters_of(model)
    axes: dict[str, Axes] = {}
    for name, channels in kept.items():
        if name in parameters:  # one that scales channels, and belongs to no layer
            axis = scale_axis(parameters[name])
            assert axis is not None
            axes[name] = {axis: torch.tensor(channels.outputs)}
            continue
        module = modules[name]
        for part, part_axes in _axes(module, channels).items():
            if getattr(module, part, None) is not None:
                axes[joined(name, part)] = part_axes
    for name, part_axes in axes_of_parts(parts, parameters_of(model) | buffers_of(model)).items():
        axes[name] = axes.get(name, {}) | part_axes
    return axes


def _axes(module: nn.Module, kept: Kept) -> dict[str, Axes]:
    """The positions that stay in a layer's own tensors, by their names in the layer."""
    if moves_channels(module):
        return {}
    outputs = torch.tensor(kept.outputs)
    if is_recurrent(module):
        assert kept.inputs is not None
        return hidden_axes(module, kept.inputs, kept.outputs)
    if isinstance(module, NORMS):
        return {part: {0: outputs} for part in ("weight", "bias", "running_mean", "running_var")}
    leaving = int(is_transposed(module))
    weight = {leaving: outputs}
    # In a grouped convolution, a weight's second dimension counts the inputs of one group, which never shrinks.
    if kept.inputs is not None and getattr(module, "groups", 1) == 1:
        weight[1 - leaving] = torch.tensor(kept.inputs)
    return {"weight": weight, "bias": {0: outputs}}


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
    """A copy of a model with fewer channels; its layers keep their classes, but for `torch.nn.MultiheadAttention`.

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
    tensors, places = parameters_of(model), Counter(map(id, parameters_of(model, remove_duplicate=False).values()))
    axes = axes_of(model, kept)
    replaced = [tensors[name] for name in axes if name in tensors]  # by narrow copies, below
    small = copied(model, {id(tensor): tensor for tensor in replaced if places[id(tensor)] == 1})
    modules = modules_of(small)
    for name in idle:
        replace(small, modules[name], pass_through(modules[name], passes.get(name)))
    renumber_caches(small, idle)
    modules = modules_of(small)  # again, without the layers of the idle blocks
    for name, channels in kept.items():
        if name in axes and name not in modules:
            owner, _, own = name.rpartition(".")
            whole = getattr(modules[owner], own)
            setattr(modules[owner], own, nn.Parameter(narrowed(whole, axes[name]), whole.requires_grad))
            continue
        module: Any = modules[name]
        if moves_channels(module):
            assert channels.inputs is not None
            replace(small, modules[name], module.kept(channels.inputs, channels.outputs))
            continue
        for part in _axes(module, channels):
            tensor = getattr(module, part, None)
            if tensor is None:
                continue
            narrow = narrowed(tensor, axes[joined(name, part)])
            is_parameter = isinstance(tensor, nn.Parameter)
            setattr(module, part, nn.Parameter(narrow, tensor.requires_grad) if is_parameter else narrow)
        _resize(module, channels)
    sizes: dict[str, Any] = {name: own for name, own in modules_of(model).items() if is_recurrent(own)}
    mend_sizes(small, {name: own.hidden_size for name, own in sizes.items() if name in modules})
    narrow_parts(small, parts)
    modules = modules_of(small)
    for part in silent:
        for name in (*part.makes, part.takes):
            replace(small, modules[name], silent_layer(modules[name], part, name))
    return small


def within(name: str, blocks: Collection[str]) -> bool:
    """Whether a parameter or module of this name lies inside one of the blocks.

    Examples:
        >>> within("layer1.0.conv1.weight", ["layer1.0"]), within("layer1.0", ["layer1.0"])
        (True, False)
    """
    return any(name.startswith(f"{block}.") for block in blocks)


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
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
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = (size,)
    elif isinstance(module, NORMS):
        module.num_features = size
    elif isinstance(module, nn.PReLU):
        module.num_parameters = size
    elif is_depthwise(module):
        module.in_channels = module.out_channels = module.groups = size
    else:
        if module.groups > 1:
            module.groups = module.groups * size // module.out_channels
        module.in_channels, module.out_channels = len(kept.inputs or ()), size


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
