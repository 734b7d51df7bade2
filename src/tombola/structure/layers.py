"""Layers: where their channels enter and leave, and which slices of their parameters belong to each channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from tombola.structure.channel_map import moves_channels
from tombola.structure.partial_norm import PartialNorm, norm_form
from tombola.structure.recurrent_layers import hidden_slices, is_recurrent
from tombola.structure.units import Slice, one_each
from tombola.structure.wiring import INPUTS
from tombola.tickets import joined, modules_of, parameters_of, unwrapped
from tombola.tickets.torch_private import own_parameters

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORMS = (*BATCH_NORMS, *INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, PartialNorm)


def entering(name: str) -> str:
    """The name of the group of a layer's inputs."""
    return name + INPUTS


def has_weight(module: nn.Module) -> bool:
    """Whether a module holds its weight itself; a parametrized module computes it anew in each call."""
    return "weight" in own_parameters(module)


def is_transposed_linear(module: Any) -> bool:
    """Whether a module is a linear layer whose weight is (inputs, outputs), as the `Conv1D` of GPT-2."""
    weight = getattr(module, "weight", None)
    return (
        isinstance(weight, Tensor)
        and weight.ndim == 2
        and (getattr(module, "nx", None), getattr(module, "nf", None)) == tuple(weight.shape)
    )


def is_linear(module: Any) -> bool:
    """Whether a module is a linear layer, whichever way its weight lies."""
    return isinstance(module, nn.Linear) or is_transposed_linear(module)


def is_transposed(module: Any) -> bool:
    """Whether a layer's weight has its inputs before its outputs."""
    return isinstance(module, TRANSPOSED) or is_transposed_linear(module)


def is_known(module: Any) -> bool:
    """Whether a module's channels and parameters can be cut: a layer or norm with its weights, or a ChannelMap."""
    if not (isinstance(module, nn.Module) and has_weight(module)):
        return moves_channels(module) or is_recurrent(module)
    if isinstance(module, nn.LayerNorm):
        return len(module.normalized_shape) == 1
    if isinstance(module, TRANSPOSED):
        return module.groups == 1
    if isinstance(module, (nn.PReLU, *INSTANCE_NORMS)):
        return module.weight is not None and module.weight.numel() > 1
    if isinstance(module, nn.RMSNorm):
        return False
    return isinstance(module, (*CONVOLUTIONS, *NORMS)) or is_linear(module) or moves_channels(module)


def is_of_stream(module: Any) -> bool:
    """Whether a module norms a stream of tokens, so that the stream is narrower only if this is."""
    return norm_form(module) is not None


def is_producer(module: Any) -> bool:
    """Whether a module is a convolution or linear layer, which makes channels."""
    return isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) or is_linear(module)


def is_depthwise(module: Any) -> bool:
    """Whether a convolution makes each channel from the one channel of the same number."""
    return isinstance(module, CONVOLUTIONS) and module.groups == module.in_channels == module.out_channels > 1


def is_divisible(module: Any) -> bool:
    """Whether a grouped convolution has several inputs and outputs in each group, of which some can go."""
    return isinstance(module, CONVOLUTIONS) and min(module.in_channels, module.out_channels) >= 2 * module.groups > 2


def has_inputs(module: Any) -> bool:
    """Whether a layer's outputs are other channels than its inputs."""
    return (is_producer(module) and not is_depthwise(module)) or is_recurrent(module)


def channels(module: Any) -> int:
    """How many channels leave a layer or norm."""
    names = ("out_channels", "out_features", "nf", "num_features", "num_channels", "num_parameters", "hidden_size")
    size = next((getattr(module, name) for name in names if hasattr(module, name)), None)
    return size or (module.normalized_shape[0] if module.weight is None else module.weight.shape[-1])


def inputs(module: Any) -> int:
    """How many channels enter a layer."""
    names = ("in_channels", "in_features", "nx", "input_size")
    return next(getattr(module, name) for name in names if hasattr(module, name))


def normed_together(module: Any) -> int:
    """How many channels share a norm's statistics, so that they can only be cut together; 1 for another module."""
    if isinstance(module, nn.GroupNorm):
        return module.num_channels // module.num_groups
    return channels(module) if is_norm_of_all(module) else 1


def is_norm_of_all(module: Any) -> bool:
    """Whether a module is a layer or RMS norm over all channels of a place."""
    return isinstance(module, nn.LayerNorm | nn.RMSNorm) or norm_form(module) is not None


def scale_axis(parameter: Tensor, widths: Collection[int] = ()) -> int | None:
    """The axis of a parameter along which channels lie: the only one that has more than one place.

    In a table of tokens or places, it is the last one, if that is as wide as a stream of tokens.

    Args:
        parameter: one that belongs to no layer.
        widths: of the streams.

    Returns:
        The axis; None for another parameter.
    """
    long = [axis for axis, size in enumerate(parameter.shape) if size > 1]
    wide = len(long) > 1 and parameter.ndim < 4 and parameter.shape[-1] in widths
    return long[-1] if (len(long) == 1 or wide) and parameter.is_floating_point() else None


def leaving_slices(name: str, module: Any, scored: bool = True) -> list[Slice]:
    """The slices of a layer's weight and bias that belong to the channels that leave it.

    Args:
        name: the layer's name.
        module: the layer or norm.
        scored: whether they count when a channel is scored.
    """
    if is_recurrent(module):
        return hidden_slices(name, module, "makes", scored)
    places = one_each(channels(module))
    own = {"weight": getattr(module, "weight", None), "bias": getattr(module, "bias", None)}
    dims = {"weight": int(is_transposed(module)), "bias": 0}
    return [
        Slice(joined(name, part), dims[part] if is_producer(module) else tensor.ndim - 1, places, scored)
        for part, tensor in own.items()
        if tensor is not None
    ]


def entering_slices(name: str, module: Any) -> list[Slice]:
    """The slices of a layer's weight that belong to the channels that enter it; none of a grouped convolution."""
    if is_recurrent(module):
        return hidden_slices(name, module, "inputs")
    if getattr(module, "groups", 1) > 1:
        return []
    places = one_each(inputs(module))
    return [Slice(joined(name, "weight"), int(not is_transposed(module)), places, scored=False)]


def tables(model: nn.Module) -> set[str]:
    """The names of the parameters whose rows embeddings give, and with which linear layers may multiply too.

    Examples:
        >>> model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
        >>> model[1].weight = model[0].weight
        >>> tables(model)
        {'0.weight'}
    """
    holders: dict[nn.Parameter, list[nn.Module]] = {}
    for module in unwrapped(model).modules():
        for parameter in own_parameters(module).values():
            if parameter is not None:
                holders.setdefault(parameter, []).append(module)
    return {
        name
        for name, parameter in parameters_of(model).items()
        if any(isinstance(own, nn.Embedding) for own in holders.get(parameter, ()))
        and all(isinstance(own, nn.Embedding | nn.Linear) and own.weight is parameter for own in holders[parameter])
    }


def shared(model: nn.Module) -> set[str]:
    """The names of modules that stand in several places, or hold a parameter that another module holds too."""
    model = unwrapped(model)  # a wrapper may hold its network twice
    held = {module: set(own_parameters(module).values()) - {None} for module in model.modules()}
    owners = Counter(parameter for own in held.values() for parameter in own)
    places = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    return {
        name
        for name, module in modules_of(model).items()
        if places[module] > 1 or any(owners[parameter] > 1 for parameter in held[module])
    }
