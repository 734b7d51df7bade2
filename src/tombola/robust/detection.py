"""Out-of-distribution detection and calibration: is a network sure where it may be?"""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.errors import TombolaError


def msp(logits: Tensor) -> Tensor:
    """The largest softmax probability of each sample, (n,); larger = inside (Hendrycks & Gimpel, ICLR 2017).

    Examples:
        >>> msp(torch.tensor([[0.0, 0.0], [100.0, 0.0]]))
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    return logits.double().softmax(1).amax(1)


def energy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """The negative free energy T·log Σ exp(logit / T) of each sample, (n,); larger = inside (Liu et al., NeurIPS 2020).

    Examples:
        >>> energy(torch.tensor([[0.0, 0.0], [3.0, -100.0]]))
        tensor([0.6931, 3.0000], dtype=torch.float64)
    """
    return temperature * (logits.double() / temperature).logsumexp(1)


def auroc(inside: Tensor, outside: Tensor) -> float:
    """The chance that an inside sample's score is above an outside sample's, ties counted half; 0.5 = blind, 1 = best.

    Examples:
        >>> auroc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]))
        0.875
    """
    inside, outside = _scores(inside, outside)
    ranked = outside.sort().values
    below, upto = (torch.searchsorted(ranked, inside, right=right) for right in (False, True))
    return float((below + upto).double().mean() / 2 / len(outside))


def fpr95(inside: Tensor, outside: Tensor) -> float:
    """The share of outside samples at or above the highest threshold that accepts 95 % of the inside ones; 0 = best.

    Examples:
        >>> fpr95(torch.arange(20), torch.tensor([0, 1, 2, 3]))
        0.75
    """
    inside, outside = _scores(inside, outside)
    refused = 5 * len(inside) // 100
    return float((outside >= inside.sort().values[refused]).double().mean())


def calibration_error(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """The expected gap between confidence and accuracy over bins of equal width (ECE; Guo et al., ICML 2017).

    Logits are (n, classes), targets (n,) whole numbers; for probabilities, as an ensemble's, give their logarithms.

    Examples:
        >>> round(calibration_error(torch.tensor([[0.8, 0.2], [0.8, 0.2]]).log(), torch.tensor([0, 1])), 6)
        0.3
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or not len(targets):
        raise TombolaError(
            f"calibration needs logits (n, classes) and targets (n,), not {(*logits.shape,)} and {(*targets.shape,)}"
        )
    if logits.isnan().any():
        raise TombolaError("calibration needs numbers, and some logits are NaN; look for where the network diverged")
    confidence, chosen = logits.double().softmax(1).max(1)
    gap = (chosen == targets).double() - confidence
    place = (confidence * bins).ceil().long() - 1
    return float(torch.bincount(place, weights=gap).abs().sum() / len(targets))


def _scores(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    inside, outside = inside.double(), outside.to(inside.device).double()
    for name, scores in (("inside", inside), ("outside", outside)):
        if scores.ndim != 1 or not len(scores) or scores.isnan().any():
            raise TombolaError(f"the {name} scores must be one number a sample, at least one and none of them NaN")
    return inside, outside
