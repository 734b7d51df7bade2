"""Drawing a ticket from a two-layer network as it stands: its activations, its targets, the picks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.methods.forward_selection import Picked, forward_selection
from tombola.scores import Batches, Forward, Loss, Scores, View, forward, suited
from tombola.structure import NeuronUnits, TwoLayers, joined
from tombola.tickets import Mask, Ticket, Values, tensors_of


@dataclass(frozen=True)
class Drawing:
    """Pick so many hidden neurons on the first `examples` training examples, against their targets.

    Called as a score is: `losses`, `whole` and `variance` of what was `Picked`, and its `scales`. Classes count as
    one-hot vectors.
    """

    layers: TwoLayers
    picks: int
    repeat: bool
    examples: int

    name: ClassVar[str] = "forward-selection"
    paper: ClassVar[str] = "Wolfe et al., TMLR 2024"
    needs_data: ClassVar[bool] = True

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        picked = self.of(model, batches, view.get("forward", forward))
        numbers = {"whole": torch.tensor(picked.whole), "variance": torch.tensor(picked.variance)}
        return {"losses": picked.losses, "scales": picked.scales, **numbers}

    @torch.no_grad()
    def of(self, model: nn.Module, batches: Batches, call: Forward) -> Picked:
        """The picks, from examples in the order of the batches."""
        last, hidden, wanted, left = self.layers.last(model), [], [], self.examples
        for given, targets in activations(self.layers, model, batches, call):
            hidden.append(given[:left])
            wanted.append(as_outputs(targets, last).to(given.device)[:left])
            left -= len(hidden[-1])
            if not left:
                break
        if not hidden:
            raise TombolaError("there is no example to choose neurons on; give training batches")
        targets = torch.cat(wanted) - (0 if last.bias is None else last.bias)
        return forward_selection(torch.cat(hidden), last.weight.T, targets, self.picks, repeat=self.repeat)


def activations(layers: TwoLayers, model: nn.Module, batches: Batches, call: Forward):
    """What the hidden neurons give for each batch, on the model's device, and the batch's targets."""
    return layers.activations(model, batches, lambda own, inputs: call(own, suited(inputs, own)))


def as_outputs(targets: Tensor, last: nn.Linear) -> Tensor:
    """Targets as what the output layer should give: numbers as they are, classes as one-hot vectors."""
    outputs = last.out_features
    if targets.ndim == 1 and not targets.is_floating_point():
        if int(targets.max()) >= outputs:
            raise TombolaError(f"there is a class {int(targets.max())}, but the network has {outputs} outputs")
        return F.one_hot(targets.long(), outputs).to(last.weight.dtype)
    wanted = targets.to(last.weight.dtype)
    wanted = wanted[:, None] if wanted.ndim == 1 else wanted
    if wanted.ndim != 2 or wanted.shape[1] != outputs:
        raise TombolaError(
            f"targets of shape {tuple(targets.shape)} do not fit {outputs} outputs; give class numbers, or as many "
            "numbers an example as there are outputs"
        )
    return wanted


def ticket_of(model: nn.Module, units: NeuronUnits, scales: Tensor, epochs: float) -> Ticket:
    """The picked neurons on the weights of now, with their scales folded into their outgoing weights."""
    kept = Mask.of({units.layers.hidden: scales > 0})
    tensors, outgoing = tensors_of(model), joined(units.layers.output, "weight")
    scaled = tensors[outgoing] * scales.to(tensors[outgoing].dtype)
    start = Values({**tensors, outgoing: scaled}, "transformed", epochs)
    return Ticket(units.expand(kept, tensors), start, removed=units.removed(kept))
