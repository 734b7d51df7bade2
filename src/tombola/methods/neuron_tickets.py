"""Drawing a ticket from a two-layer network as it stands: its activations, its targets, the picks."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.methods.neuron_selection import NeuronPicks, forward_selection
from tombola.scores import Batches, Forward, suited
from tombola.structure import NeuronUnits, TwoLayerNetwork
from tombola.tickets import Mask, Ticket, Values, joined, tensors_of
from tombola.training import as_outputs, check_classes


@dataclass(frozen=True)
class TwoLayerDraw:
    """Draws a ticket from a network of two linear layers: picks hidden neurons against the training targets.

    Args:
        layers: which layers are the hidden one and the output.
        picks: how many picks are made.
        repeat: whether a neuron may be picked again.
        examples: how many of the first training examples are used. Classes count as one-hot vectors.
    """

    layers: TwoLayerNetwork
    picks: int
    repeat: bool
    examples: int

    @torch.no_grad()
    def of(self, model: nn.Module, batches: Batches, call: Forward) -> NeuronPicks:
        """The picks on a network as it stands, from examples in the order of the batches."""
        last, hidden, outputs, remaining = self.layers.last(model), [], [], self.examples
        for activation, targets in activations(self.layers, model, batches, call):
            if not targets.is_floating_point() and targets.ndim == 1 and last.out_features > 1:
                check_classes(targets, last.out_features)
            hidden.append(activation[:remaining])
            outputs.append(as_outputs(targets, activation.new_empty(len(activation), last.out_features))[:remaining])
            remaining -= len(hidden[-1])
            if not remaining:
                break
        if not hidden:
            raise TombolaError("there is no example to choose neurons on; give training batches")
        targets = torch.cat(outputs).to(last.weight.dtype) - (0 if last.bias is None else last.bias)
        return forward_selection(torch.cat(hidden), last.weight.T, targets, self.picks, repeat=self.repeat)


def activations(
    layers: TwoLayerNetwork, model: nn.Module, batches: Batches, call: Forward
) -> Generator[tuple[Tensor, Tensor]]:
    """What the hidden neurons give for each batch, and its targets, both on the model's device."""
    weight = layers.last(model).weight
    pairs = layers.activations(model, batches, lambda network, inputs: call(network, suited(inputs, network)))
    for hidden, targets in pairs:
        yield hidden.to(weight.dtype), targets.to(weight.device)


def ticket_of(model: nn.Module, units: NeuronUnits, scales: Tensor, epochs: float) -> Ticket:
    """The picked neurons as a ticket: the weights of now, with the scales folded into the outgoing weights.

    The other neurons, which the mask removes, get the smallest of these scales, since a control that shuffles masks
    needs their values.
    """
    kept = Mask.of({units.layers.hidden: scales > 0})
    tensors, outgoing = tensors_of(model), joined(units.layers.output, "weight")
    folded = scales.where(scales > 0, scales[scales > 0].min())
    scaled = tensors[outgoing] * folded.to(tensors[outgoing].dtype)
    start = Values({**tensors, outgoing: scaled}, "transformed", epochs)
    return Ticket(units.expand(kept, tensors), start, removed=units.removed(kept))
