"""Greedy forward selection of the neurons of a two-layer network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tombola.errors import TombolaError

ROWS = 256
"""Examples squared together, so that no second array as large as the activations is made."""


@dataclass(frozen=True, eq=False)
class NeuronPicks:
    """The neurons in the order in which they were picked, and ½ of the mean squared error after each.

    whole: that of all neurons together; variance: of what single neurons give about what all give together. Bounds on
    the losses follow from the two (`papers.pretraining.theory`).
    """

    order: Tensor
    losses: Tensor
    neurons: int
    whole: float
    variance: float

    @property
    def counts(self) -> Tensor:
        """How often each neuron was picked."""
        return torch.bincount(self.order, minlength=self.neurons)

    @property
    def scales(self) -> Tensor:
        """What the outgoing weights of each neuron are multiplied with: count · neurons / picks."""
        return self.counts.double() * (self.neurons / len(self.order))


def check_picks(picks: int, neurons: int, repeat: bool, layer: str) -> None:
    """TombolaError for fewer picks than one, and for more than a layer's neurons if none may come again."""
    if picks < 1:
        raise TombolaError(f"{picks} neurons are to be picked; give at least 1")
    if not repeat and picks > neurons:
        raise TombolaError(
            f"{picks} neurons are to be picked without repetition, but {layer} has {neurons}; ask for at most "
            f"{neurons}, or let neurons repeat"
        )


@torch.no_grad()
def forward_selection(
    hidden: Tensor, outgoing: Tensor, targets: Tensor, picks: int, *, repeat: bool = True
) -> NeuronPicks:
    """Pick neurons one by one, each so that the mean of those picked comes nearest to the targets.

    hidden: what the neurons give (examples × neurons); outgoing: their outgoing weights (neurons × outputs), so that
    the network gives hidden @ outgoing; targets: (examples × outputs), less the output bias. Neuron i is Φᵢ =
    neurons · hiddenᵢ ⊗ outgoingᵢ, the network the mean of all Φᵢ, and the k-th pick minimises ‖(Φ₁ + … + Φₖ)/k − y‖²
    (Ye et al., ICML 2020; Wolfe et al., arXiv 2108.00259), where one neuron may come again unless `repeat` is off.

    A step is one product of `hidden`ᵀ with a vector (a matrix of one column, whose FLOPs are counted): ⟨Φᵢ, Φⱼ⟩ is that
    of the activations times that of the outgoing weights, so neither a Gram matrix nor any Φ is made. Runs where
    `hidden` is. TombolaError for more picks than neurons without repetition, and for activations that are not finite.
    """
    examples, neurons = hidden.shape
    check_picks(picks, neurons, repeat, "the hidden layer")
    weights, wanted = neurons * outgoing.double(), targets.double()
    mean = torch.cat([hidden @ own[:, None] for own in outgoing.T.contiguous()], 1).double()
    columns = targets.T.to(hidden.dtype).contiguous()
    towards = (torch.cat([hidden.T @ column[:, None] for column in columns], 1).double() * weights).sum(1)
    sizes = torch.stack([part.square().sum(0, dtype=torch.float64) for part in hidden.split(ROWS)])
    norms = sizes.sum(0) * weights.square().sum(1)
    if not norms.isfinite().all():
        raise TombolaError("the hidden neurons give values that are not finite; train at a lower learning rate")
    whole = float((mean - wanted).square().sum() / (2 * examples))
    variance = float(norms.mean() - mean.square().sum()) / examples
    overlaps = torch.zeros_like(norms)
    total = torch.zeros_like(wanted)
    order, losses = [], []
    for count in range(1, picks + 1):
        best = torch.argmin(norms + 2 * (overlaps - count * towards), keepdim=True)
        column, row = hidden.index_select(1, best), weights.index_select(0, best)
        overlaps += ((hidden.T @ column).double() * (weights @ row.T)).squeeze(1)
        total += column.double() * row
        order.append(best)
        losses.append((total / count - wanted).square().sum() / (2 * examples))
        if not repeat:
            norms.index_fill_(0, best, torch.inf)
    return NeuronPicks(torch.cat(order), torch.stack(losses), neurons, whole, variance)
