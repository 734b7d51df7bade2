"""A network with one hidden layer, for the theory of greedy selection (Ye et al., ICML 2020)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from tombola.zoo.input_shapes import Shape, scaled


class Share(nn.Module):
    """Divides by the number of neurons, so that the next layer takes their mean.

    Args:
        neurons: how many there are.
    """

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.neurons = neurons

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden / self.neurons

    def extra_repr(self) -> str:
        return str(self.neurons)


def two_layer(input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """The mean of 1,000 tanh neurons, f(x) = (1/N) Σ bᵢ tanh(⟨aᵢ, x⟩ + cᵢ), on flattened inputs of any shape.

    bᵢ is drawn from [−1, 1]. The gradient of a neuron is N times smaller than in a sum, so that SGD needs larger
    learning rates, in the tens to hundreds.

    Args:
        input_shape: of one sample, any.
        classes: how many classes the network tells apart.
        width: neurons, as a multiple of the network's own.
    """
    neurons = scaled(1000, width)
    last = nn.Linear(neurons, classes, bias=False)
    nn.init.uniform_(last.weight, -1.0, 1.0)
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), neurons), nn.Tanh(), Share(neurons), last)
