"""Networks of two linear layers: which is the hidden one, and what its neurons give."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.structure.channel_granularity import Channels, ChannelUnits
from tombola.structure.graph import Probe
from tombola.structure.modes import in_mode
from tombola.tickets import modules_of

Call = tuple[nn.Module, Tensor, Tensor]
DEEPER = "use the method greedy, which goes layer by layer"


@dataclass(frozen=True)
class TwoLayerNetwork:
    """The names of the hidden and of the output layer of f(x) = B · act(A x + a) + b, and the lengths of x and a."""

    hidden: str
    output: str
    inputs: int
    neurons: int

    def last(self, model: nn.Module) -> nn.Linear:
        """The output layer, whose weight has a column a neuron."""
        layer = modules_of(model)[self.output]
        assert isinstance(layer, nn.Linear)
        return layer

    def activations(
        self, model: nn.Module, batches: Iterable[tuple[Any, Any]], call: Callable[[nn.Module, Any], Any]
    ) -> Generator[tuple[Tensor, Any]]:
        """What the neurons give for each batch (samples × neurons, in eval mode), and the batch's targets."""
        for inputs, targets in batches:
            with torch.no_grad(), _watched(model, self.last(model)) as calls:
                call(model, inputs)
            yield calls[-1][1], targets


@dataclass(frozen=True, eq=False)
class NeuronUnits(ChannelUnits):
    """The channels of a network of two linear layers, which are its hidden neurons."""

    layers: TwoLayerNetwork = field(kw_only=True)


@dataclass(frozen=True)
class Neurons(Channels):
    """The hidden neurons of a network of two linear layers; other networks are refused."""

    def units(self, model: nn.Module, probe: Probe) -> NeuronUnits:
        layers = two_layers(model, probe)
        found = super().units(model, probe)
        return NeuronUnits(found.wiring, found.reduction, layers=layers)


@torch.no_grad()
def two_layers(model: nn.Module, probe: Probe) -> TwoLayerNetwork:
    """The two layers of a network; TombolaError, naming the place, if it is another kind of network.

    probe: calls it on an example of its inputs.
    """
    named = modules_of(model)
    layers = {own: name for name, own in named.items() if next(own.parameters(recurse=False), None) is not None}
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
    with _watched(model, *layers) as calls:
        outputs = probe(model)
    if len(calls) != 2:
        raise TombolaError(f"the two linear layers are called {len(calls)} times in a pass, not once each; {DEEPER}")
    (hidden, _, leaving), (output, entering, given) = calls
    if entering.ndim != 2 or entering.shape != leaving.shape:
        raise TombolaError(
            f"what reaches '{layers[output]}' has the shape {tuple(entering.shape)} and what leaves "
            f"'{layers[hidden]}' {tuple(leaving.shape)}, but neurons must be columns there; {DEEPER}"
        )
    if outputs is not given:
        raise TombolaError(
            f"something follows '{layers[output]}', but its outputs must be the network's; move it into the loss"
        )
    assert isinstance(hidden, nn.Linear)
    return TwoLayerNetwork(layers[hidden], layers[output], hidden.in_features, hidden.out_features)


@contextmanager
def _watched(model: nn.Module, *layers: nn.Module) -> Generator[list[Call]]:
    """The calls of these layers while inside, with the model in eval mode."""
    calls: list[Call] = []
    handles = [
        layer.register_forward_hook(lambda own, inputs, output: calls.append((own, inputs[0], output)))
        for layer in layers
    ]
    try:
        with in_mode(model, "eval"):
            yield calls
    finally:
        for handle in handles:
            handle.remove()
