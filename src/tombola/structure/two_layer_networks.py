"""Networks of two linear layers: which one is hidden, and the activations of its neurons."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.structure.channel_granularity import ChannelUnits, SeparateChannels
from tombola.structure.graph import Probe
from tombola.structure.modes import in_mode
from tombola.tickets import modules_of

Call = tuple[nn.Module, Tensor, Tensor]
"""A layer that was called, its input and its output."""

DEEPER = "use the method greedy, which goes layer by layer"


@dataclass(frozen=True)
class TwoLayerNetwork:
    """A network f(x) = B · act(A x + a) + b.

    Args:
        hidden: the name of the layer (A, a).
        output: the name of the layer (B, b).
        inputs: the length of x.
        neurons: the length of a.
    """

    hidden: str
    output: str
    inputs: int
    neurons: int

    def last(self, model: nn.Module) -> nn.Linear:
        """The output layer, whose weight has one column a neuron."""
        layer = modules_of(model)[self.output]
        assert isinstance(layer, nn.Linear)
        return layer

    def activations(
        self, model: nn.Module, batches: Iterable[tuple[Any, Any]], call: Callable[[nn.Module, Any], Any]
    ) -> Generator[tuple[Tensor, Any]]:
        """The neurons' activations (samples × neurons, in evaluation mode) and the targets, batch by batch.

        Args:
            model: the network.
            batches: (inputs, targets) each.
            call: calls a model on inputs.
        """
        for inputs, targets in batches:
            with torch.no_grad(), _recorded_calls(model, self.last(model)) as calls:
                call(model, inputs)
            yield calls[-1][1], targets


@dataclass(frozen=True, eq=False)
class NeuronUnits(ChannelUnits):
    """The channels of a network of two linear layers, which are its hidden neurons.

    Args:
        layers: the two layers.
    """

    layers: TwoLayerNetwork = field(kw_only=True)


@dataclass(frozen=True)
class Neurons(SeparateChannels):
    """The hidden neurons of a network of two linear layers; other networks are refused."""

    def units(self, model: nn.Module, probe: Probe) -> NeuronUnits:
        """The neurons of a network; TombolaError if it is another kind of network."""
        layers = two_layers(model, probe)
        channels = super().units(model, probe)
        return NeuronUnits(channels.wiring, channels.reduction, layers=layers)


@torch.no_grad()
def two_layers(model: nn.Module, probe: Probe) -> TwoLayerNetwork:
    """The two layers of a network.

    Args:
        model: the network.
        probe: calls it on an example of its inputs.

    Raises:
        TombolaError: if it is another kind of network; names the place.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> two_layers(model, lambda network: network(torch.ones(1, 2)))
        TwoLayerNetwork(hidden='0', output='2', inputs=2, neurons=3)
    """
    modules = modules_of(model)
    layers = {m: name for name, m in modules.items() if next(m.parameters(recurse=False), None) is not None}
    for layer, name in layers.items():
        if not isinstance(layer, nn.Linear):
            raise TombolaError(
                f"'{name}' is a {type(layer).__name__}, but greedy selection of neurons takes two linear layers and "
                f"nothing else that has parameters; {DEEPER}"
            )
    if len(layers) != 2:
        raise TombolaError(
            f"this network has {len(layers)} linear layer{'s' * (len(layers) != 1)} "
            f"({', '.join(layers.values())}), but greedy selection of neurons takes two; {DEEPER}"
        )
    with _recorded_calls(model, *layers) as calls:
        outputs = probe(model)
    if len(calls) != 2:
        raise TombolaError(f"the two linear layers are called {len(calls)} times in a pass, not once each; {DEEPER}")
    (hidden, _, leaving), (output, entering, result) = calls
    if entering.ndim != 2 or entering.shape != leaving.shape:
        raise TombolaError(
            f"what reaches '{layers[output]}' has the shape {tuple(entering.shape)} and what leaves "
            f"'{layers[hidden]}' {tuple(leaving.shape)}, but neurons must be columns there; {DEEPER}"
        )
    if outputs is not result:
        raise TombolaError(
            f"something follows '{layers[output]}', but its outputs must be the network's; move it into the loss"
        )
    assert isinstance(hidden, nn.Linear)
    return TwoLayerNetwork(layers[hidden], layers[output], hidden.in_features, hidden.out_features)


@contextmanager
def _recorded_calls(model: nn.Module, *layers: nn.Module) -> Generator[list[Call]]:
    """The calls of these layers while inside, with the model in evaluation mode."""
    calls: list[Call] = []
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: calls.append((module, inputs[0], output)))
        for layer in layers
    ]
    try:
        with in_mode(model, "eval"):
            yield calls
    finally:
        for handle in handles:
            handle.remove()
