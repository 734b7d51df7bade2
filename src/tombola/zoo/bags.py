"""What texts say without their order: a classifier on which word pieces a text has, to be beaten first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tombola.errors import TombolaError
from tombola.zoo.normalisation import Data

DECAYS = (0.01, 0.1, 1.0)


def bag_of_words(data: Data) -> float:
    """The accuracy on the test split of a logistic regression on the word pieces that a text has.

    Its weight decay is the one of three that does best on a tenth of the training data.

    Args:
        data: splits of word pieces (n, length) and class numbers (n,).

    Raises:
        TombolaError: if the inputs are no word pieces, or the targets no classes.

    Examples:
        >>> pieces = torch.tensor([[5, 7], [6, 7], [5, 8], [6, 8]] * 10)
        >>> split = pieces, torch.tensor([0, 1, 0, 1] * 10)
        >>> bag_of_words({"train": split, "test": split})
        1.0
    """
    inputs, targets = data["train"]
    if inputs.ndim != 2 or inputs.is_floating_point() or targets.is_floating_point():
        raise TombolaError("a bag of words needs word pieces (n, length) and class numbers; give texts and classes")
    known = inputs.unique()
    aside = torch.arange(len(targets)) % 10 == 9
    classes = int(targets.max()) + 1
    if not aside.any():
        aside = torch.ones_like(aside)

    def trained(rows: Tensor, labels: Tensor, decay: float) -> tuple[Tensor, Tensor]:
        weights = torch.zeros(len(known) + 1, classes, requires_grad=True)
        bias = torch.zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights, bias], max_iter=60, history_size=5, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            outputs = F.embedding_bag(rows, weights, mode="mean") + bias
            loss = F.cross_entropy(outputs, labels) + decay * weights.square().sum() / len(labels) / rows.shape[1]
            loss.backward()
            return loss

        optimizer.step(closure)
        return weights.detach(), bias.detach()

    def accuracy(model: tuple[Tensor, Tensor], rows: Tensor, labels: Tensor) -> float:
        outputs = F.embedding_bag(rows, model[0], mode="mean") + model[1]
        return float((outputs.argmax(1) == labels).float().mean())

    rows = _numbered(inputs, known)
    scores = {
        decay: accuracy(trained(rows[~aside], targets[~aside], decay), rows[aside], targets[aside])
        if not aside.all()
        else 0.0
        for decay in DECAYS
    }
    best = max(scores, key=lambda decay: scores[decay])
    test, labels = data["test"]
    return accuracy(trained(rows, targets, best), _numbered(test, known), labels)


def _numbered(pieces: Tensor, known: Tensor) -> Tensor:
    """Pieces by their numbers among the known ones; the last number is that of all others."""
    places = torch.searchsorted(known, pieces).clamp(max=len(known) - 1)
    return torch.where(known[places] == pieces, places, len(known))
