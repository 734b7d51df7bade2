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
    """Pick so many hidden neurons on the first `examples` training examples, against their targets.

    Classes count as one-hot vectors.
    """

    layers: TwoLayerNetwork
    picks: int
    repeat: bool
    examples: int

    @torch.no_grad()
    def of(self, model: nn.Module, batches: Batches, call: Forward) -> NeuronPicks:
        """The picks, from examples in the order of the batches."""
        last, hidden, wanted, left = self.layers.last(model), [], [], self.examples
        for given, targets in activations(self.layers, model, batches, call):
            if not targets.is_floating_point() and targets.ndim == 1 and last.out_features > 1:
                check_classes(targets, last.out_features)
            hidden.append(given[:left])
            wanted.append(as_outputs(targets, given.new_empty(len(given), last.out_features))[:left])
            left -= len(hidden[-1])
            if not left:
                break
        if not hidden:
            raise TombolaError("there is no example to choose neurons on; give training batches")
        targets = torch.cat(wanted).to(last.weight.dtype) - (0 if last.bias is None else last.bias)
        return forward_selection(torch.cat(hidden), last.weight.T, targets, self.picks, repeat=self.repeat)


def activations(
    layers: TwoLayerNetwork, model: nn.Module, batches: Batches, call: Forward
) -> Generator[tuple[Tensor, Tensor]]:
    """What the hidden neurons give for each batch, on the model's device and in its precision, and its targets."""
    weight = layers.last(model).weight
    for hidden, targets in layers.activations(model, batches, lambda own, inputs: call(own, suited(inputs, own))):
        yield hidden.to(weight.dtype), targets.to(weight.device)


def ticket_of(model: nn.Module, units: NeuronUnits, scales: Tensor, epochs: float) -> Ticket:
    """The picked neurons on the weights of now, with their scales folded into their outgoing weights.

    The others, which the mask removes, have the smallest of these scales: a control that shuffles masks needs values.
    """
    kept = Mask.of({units.layers.hidden: scales > 0})
    tensors, outgoing = tensors_of(model), joined(units.layers.output, "weight")
    folded = scales.where(scales > 0, scales[scales > 0].min())
    scaled = tensors[outgoing] * folded.to(tensors[outgoing].dtype)
    start = Values({**tensors, outgoing: scaled}, "transformed", epochs)
    return Ticket(units.expand(kept, tensors), start, removed=units.removed(kept))
