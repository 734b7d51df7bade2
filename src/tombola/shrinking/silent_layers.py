"""What stands in the place of a feed-forward part that was cut out whole: layers that compute nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tombola.structure import PlacedPart, is_linear, is_transposed_linear
from tombola.tickets import joined, modules_of


@dataclass(frozen=True)
class Silence:
    """The layers of a feed-forward part of which no hidden neuron is left.

    Args:
        makes: the names of those that gave the neurons, and give nothing.
        takes: the name of the one that took them, and gives its bias, or zeros.
        bias: whether that bias stays.
    """

    makes: tuple[str, ...]
    takes: str
    bias: bool

    @property
    def tensors(self) -> set[str]:
        """The names of the parameters that go."""
        layers = (*self.makes, self.takes)
        gone = {joined(layer, own) for layer in layers for own in ("weight", "bias")}
        return gone - {joined(self.takes, "bias")} if self.bias else gone


class SilentLinear(nn.Module):
    """Gives the same whatever comes: its bias, or zeros.

    Args:
        size: how many numbers it gives for each position.
        bias: what it gives; zeros if None.

    Examples:
        >>> import torch
        >>> SilentLinear(3)(torch.ones(2, 5)).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
        >>> SilentLinear(0)(torch.ones(2, 5)).shape
        torch.Size([2, 0])
    """

    def __init__(self, size: int, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.out_features, self.bias = size, bias
        self.register_parameter("weight", None)  # some code asks for the type of a layer's weight

    def forward(self, inputs: Tensor) -> Tensor:
        """Numbers for each position of the inputs."""
        shape = (*inputs.shape[:-1], self.out_features)
        return inputs.new_zeros(shape) if self.bias is None else self.bias.to(inputs.dtype).expand(shape)


def silences(
    model: nn.Module, parts: Sequence[PlacedPart], alive: Mapping[str, Tensor], idle: Collection[str]
) -> tuple[Silence, ...]:
    """The feed-forward parts of linear layers, outside idle blocks, of which a mask keeps no neuron.

    Args:
        model: the masked network.
        parts: its parts.
        alive: the mask, by the parameter's name.
        idle: the residual blocks that go whole.
    """
    modules, found = modules_of(model), []
    for part in parts:
        layers = (*part.layers, part.name)
        if part.kind != "neuron" or any(name.startswith(f"{block}.") for name in layers for block in idle):
            continue
        if not all(is_linear(modules.get(name)) for name in layers) or len(part.dead(alive)) < part.size:
            continue
        name = joined(part.name, "bias")
        has_bias = getattr(modules[part.name], "bias", None) is not None
        found.append(Silence(part.layers, part.name, has_bias and (name not in alive or bool(alive[name].any()))))
    return tuple(found)


def silent_layer(layer: Any, silence: Silence, name: str) -> SilentLinear:
    """What stands in the place of a layer of a silent part.

    Args:
        layer: the layer, as wide as its stream is now.
        silence: the part.
        name: the layer's.
    """
    if name != silence.takes:
        return SilentLinear(0)
    width = layer.weight.shape[1 if is_transposed_linear(layer) else 0]
    return SilentLinear(width, layer.bias if silence.bias else None)
