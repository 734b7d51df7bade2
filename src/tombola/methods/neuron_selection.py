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
    """Neurons in the order in which they were picked, and how near they come to the targets.

    Bounds on the losses follow from `whole` and `variance` (`papers.pretraining.theory`).

    Args:
        order: the numbers of the picked neurons, shape (picks,).
        losses: half the mean squared error after each pick, shape (picks,).
        neurons: how many neurons the layer has.
        whole: half the mean squared error of all neurons together.
        variance: the mean squared distance, over neurons and examples, between what single neurons give and what all
            give together.
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
        """What the outgoing weights of each neuron are multiplied by: count · neurons / picks."""
        return self.counts.double() * (self.neurons / len(self.order))


def check_picks(picks: int, neurons: int, repeat: bool, layer: str) -> None:
    """Raise TombolaError for fewer than one pick, and for more picks than neurons if none may come again."""
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
    """Pick neurons one by one, each so that the mean of the picked ones comes nearest to the targets.

    Neuron i is Φᵢ = neurons · hiddenᵢ ⊗ outgoingᵢ, and the network is the mean of all Φᵢ. The k-th pick minimises the
    error ‖(Φ₁+…+Φₖ)/k − y‖² (Ye et al., ICML 2020; Wolfe et al., arXiv 2108.00259). The selection runs on the device of
    `hidden`.

    Args:
        hidden: what the neurons give, shape (examples, neurons).
        outgoing: their outgoing weights, shape (neurons, outputs), so that the network gives hidden @ outgoing.
        targets: what it should give, less the output bias, shape (examples, outputs).
        picks: how many picks are made, at least 1.
        repeat: whether a neuron may be picked again.

    Raises:
        TombolaError: for more picks than neurons without repetition, and for activations that are not finite.

    Examples:
        >>> hidden, outgoing = torch.eye(3), torch.tensor([[1.0], [2.0], [3.0]])
        >>> forward_selection(hidden, outgoing, hidden @ outgoing, picks=3).losses.shape
        torch.Size([3])
    """
    examples, neurons = hidden.shape
    check_picks(picks, neurons, repeat, "the hidden layer")
    # ⟨Φᵢ, Φⱼ⟩ is the inner product of the activations times that of the outgoing weights. So a step needs one product
    # of hiddenᵀ with a vector, and no Gram matrix or Φ is made. The vector is a matrix of one column, since the FLOP
    # counter does not see products with vectors.
    weights, wanted = neurons * outgoing.double(), targets.double()
    mean = torch.cat([hidden @ column[:, None] for column in outgoing.T.contiguous()], 1).double()
    columns = targets.T.to(hidden.dtype).contiguous()
    target_overlaps = (torch.cat([hidden.T @ column[:, None] for column in columns], 1).double() * weights).sum(1)
    chunk_norms = torch.stack([chunk.square().sum(0, dtype=torch.float64) for chunk in hidden.split(ROWS)])
    norms = chunk_norms.sum(0) * weights.square().sum(1)
    if not norms.isfinite().all():
        raise TombolaError("the hidden neurons give values that are not finite; train at a lower learning rate")
    whole = float((mean - wanted).square().sum() / (2 * examples))
    variance = float(norms.mean() - mean.square().sum()) / examples
    picked_overlaps = torch.zeros_like(norms)
    total = torch.zeros_like(wanted)
    order, losses = [], []
    for count in range(1, picks + 1):
        best = torch.argmin(norms + 2 * (picked_overlaps - count * target_overlaps), keepdim=True)
        column, row = hidden.index_select(1, best), weights.index_select(0, best)
        picked_overlaps += ((hidden.T @ column).double() * (weights @ row.T)).squeeze(1)
        total += column.double() * row
        order.append(best)
        losses.append((total / count - wanted).square().sum() / (2 * examples))
        if not repeat:
            norms.index_fill_(0, best, torch.inf)
    return NeuronPicks(torch.cat(order), torch.stack(losses), neurons, whole, variance)
