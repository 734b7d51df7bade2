"""The layers of attention and feed-forward parts, whatever they are: linear, pointwise, transposed, with a norm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tombola.structure.layers import BATCH_NORMS, CONVOLUTIONS, channels, has_weight, is_depthwise, is_transposed_linear
from tombola.structure.placed_parts import Place, Role
from tombola.tickets import joined

MOST = 6
"""A module with more layers is not looked through for parts whose layers have other names."""


@dataclass(frozen=True, eq=False)
class MixingLayer:
    """A layer that multiplies with a matrix.

    Args:
        name: its name.
        module: the layer.
        outs: how many numbers leave it.
        ins: how many enter.
        norms: what follows it channel by channel in a container of its own.
    """

    name: str
    module: Any
    outs: int
    ins: int
    norms: Mapping[str, nn.Module]

    def rows(self, *, inner: int, outer: int = 1, start: int = 0, role: Role = "makes") -> list[Place]:
        """Where units that leave the layer lie in its tensors, and in its norms'."""
        dims = {"weight": 1 if is_transposed_linear(self.module) else 0, "bias": 0}
        owners = {self.name: self.module, **self.norms}
        tensors = ("weight", "bias", "running_mean", "running_var")
        role = "makes" if self.norms and role == "value" else role  # a norm's shift speaks where its inputs are zero
        return [
            Place(joined(name, tensor), dims.get(tensor, 0) if owner is self.module else 0, inner, outer, start, role)
            for name, owner in owners.items()
            for tensor in tensors
            if isinstance(getattr(owner, tensor, None), Tensor)
        ]

    def columns(self, inner: int) -> Place:
        """Where units that enter the layer lie in its weight."""
        return Place(joined(self.name, "weight"), 0 if is_transposed_linear(self.module) else 1, inner, role="takes")


def layer_at(modules: Mapping[str, nn.Module], name: str) -> MixingLayer | None:
    """The layer of this name, or the only one in the container of this name, beside which only
    batch norms and depthwise convolutions stand.
    """
    if name not in modules:
        return None
    found, norms = [], {}
    for path, module in ((joined(name, path), own) for path, own in modules[name].named_modules()):
        if (size := sizes_of(module)) is not None:
            found.append((path, module, *size))
        elif isinstance(module, BATCH_NORMS) or is_depthwise(module):
            if found:
                norms[path] = module
        elif any(True for _ in module.parameters(recurse=False)):
            return None
    if len(found) != 1 or any(channels(norm) != found[0][2] for norm in norms.values()):
        return None
    return MixingLayer(*found[0], norms)


def sizes_of(module: nn.Module) -> tuple[int, int] | None:
    """(outputs, inputs) of a layer that multiplies with a matrix; None for another module."""
    if not has_weight(module):
        return None
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if is_transposed_linear(module):
        weight: Any = module.weight
        return weight.shape[1], weight.shape[0]
    if isinstance(module, CONVOLUTIONS) and module.groups == 1:
        return module.out_channels, module.in_channels
    return None


def layers_below(modules: Mapping[str, nn.Module], name: str) -> Iterator[MixingLayer]:
    """All mixing layers in a module, by the container of each where it has one."""
    for child, module in modules[name].named_children():
        path = joined(name, child)
        if path not in modules:
            continue
        layer = layer_at(modules, path)
        if layer is not None:
            yield layer
        elif sizes_of(module) is None:
            yield from layers_below(modules, path)
