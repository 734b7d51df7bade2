"""Layers: where their channels enter and leave, and what of their parameters belongs to each."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn

from tombola.structure.channel_map import ChannelMap
from tombola.structure.units import Slice
from tombola.structure.wiring import INPUTS
from tombola.tickets import joined, modules_of
from tombola.tickets.torch_private import own_parameters

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
NORMS = (*BATCH_NORMS, nn.GroupNorm, nn.LayerNorm)


def entering(name: str) -> str:
    return name + INPUTS


def has_weight(module: nn.Module) -> bool:
    """Whether a module holds its weight itself, and does not compute it anew in each call."""
    return "weight" in own_parameters(module)


def is_known(module: Any) -> bool:
    if not isinstance(module, ChannelMap) and not (isinstance(module, nn.Module) and has_weight(module)):
        return False  # no layer of ours, or its weight is computed anew in each call
    if isinstance(module, nn.LayerNorm):
        return len(module.normalized_shape) == 1
    if isinstance(module, TRANSPOSED):
        return module.groups == 1
    return isinstance(module, (*CONVOLUTIONS, nn.Linear, *NORMS, ChannelMap))


def is_producer(module: Any) -> bool:
    return isinstance(module, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear))


def is_depthwise(module: Any) -> bool:
    return isinstance(module, CONVOLUTIONS) and module.groups == module.in_channels == module.out_channels > 1


def has_inputs(module: Any) -> bool:
    """Whether what leaves a layer is not what entered it, channel by channel."""
    return is_producer(module) and not is_depthwise(module)


def channels(module: Any) -> int:
    names = ("out_channels", "out_features", "num_features", "num_channels")
    return next((getattr(module, name) for name in names if hasattr(module, name)), None) or module.normalized_shape[0]


def inputs(module: Any) -> int:
    return module.in_features if isinstance(module, nn.Linear) else module.in_channels


def normed_together(module: Any) -> int:
    """How many channels share a norm's statistics."""
    if isinstance(module, nn.GroupNorm):
        return module.num_channels // module.num_groups
    return module.normalized_shape[0] if isinstance(module, nn.LayerNorm) else 1


def leaving_slices(name: str, module: Any, scored: bool = True) -> list[Slice]:
    places = tuple((channel,) for channel in range(channels(module)))
    across = 1 if isinstance(module, TRANSPOSED) else 0
    own = {"weight": across, "bias": 0}
    return [
        Slice(joined(name, part), dim, places, scored)
        for part, dim in own.items()
        if getattr(module, part, None) is not None
    ]


def entering_slices(name: str, module: Any) -> list[Slice]:
    if getattr(module, "groups", 1) > 1:
        return []
    places = tuple((channel,) for channel in range(inputs(module)))
    return [Slice(joined(name, "weight"), 0 if isinstance(module, TRANSPOSED) else 1, places, scored=False)]


def shared(model: nn.Module) -> set[str]:
    """Modules that stand in several places, or have a parameter that another module has too."""
    owners = Counter(p for module in model.modules() for p in module.parameters(recurse=False))
    places = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    named = modules_of(model)
    return {
        name
        for name, own in named.items()
        if places[own] > 1 or any(owners[p] > 1 for p in own.parameters(recurse=False))
    }
