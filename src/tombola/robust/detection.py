"""Detection of foreign inputs (out of distribution), and calibration of a network's confidence."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.errors import TombolaError


def msp(logits: Tensor) -> Tensor:
    """The largest softmax probability (Hendrycks & Gimpel, ICLR 2017).

    Args:
        logits: (n, classes).

    Returns:
        (n,); larger = inside the training distribution.

    Examples:
        >>> msp(torch.tensor([[0.0, 0.0], [100.0, 0.0]]))
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    return logits.double().softmax(1).amax(1)


def energy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """The negative free energy T·log Σ exp(logit / T) (Liu et al., NeurIPS 2020).

    Args:
        logits: (n, classes).
        temperature: T.

    Returns:
        (n,); larger = inside the training distribution.

    Examples:
        >>> energy(torch.tensor([[0.0, 0.0], [3.0, -100.0]]))
        tensor([0.6931, 3.0000], dtype=torch.float64)
    """
    return temperature * (logits.double() / temperature).logsumexp(1)


def auroc(inside: Tensor, outside: Tensor) -> float:
    """The probability that an inside sample scores above an outside sample; a tie counts half.

    Args:
        inside: (n,), scores of samples like the training data; larger = inside.
        outside: (m,), scores of foreign samples.

    Returns:
        A share of 1; 0.5 for a blind score, 1 for a perfect one.

    Raises:
        TombolaError: scores are empty, NaN or not one number for each sample.

    Examples:
        >>> auroc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]))
        0.875
    """
    inside, outside = _scores(inside, outside)
    ranked = outside.sort().values
    below, upto = (torch.searchsorted(ranked, inside, right=right) for right in (False, True))
    return float((below + upto).double().mean() / 2 / len(outside))


def fpr95(inside: Tensor, outside: Tensor) -> float:
    """The false positive rate: the share of outside samples that pass a threshold which 95 % of the inside ones pass.

    Args:
        inside: (n,), scores of samples like the training data; larger = inside.
        outside: (m,), scores of foreign samples.

    Returns:
        A share of 1; 0 is best.

    Raises:
        TombolaError: scores are empty, NaN or not one number for each sample.

    Examples:
        >>> fpr95(torch.arange(20), torch.tensor([0, 1, 2, 3]))
        0.75
    """
    inside, outside = _scores(inside, outside)
    refused = 5 * len(inside) // 100
    return float((outside >= inside.sort().values[refused]).double().mean())


def calibration_error(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """The expected gap between confidence and accuracy over bins of equal width (ECE; Guo et al., ICML 2017).

    Args:
        logits: (n, classes); for probabilities, as an ensemble's, give their logarithms.
        targets: (n,), class numbers.
        bins: how many bins of confidence; 15 as in the paper.

    Returns:
        A share of 1; 0 is best.

    Raises:
        TombolaError: the shapes do not fit, there is no sample, or a logit is NaN.

    Examples:
        >>> round(calibration_error(torch.tensor([[0.8, 0.2], [0.8, 0.2]]).log(), torch.tensor([0, 1])), 6)
        0.3
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or not len(targets):
        raise TombolaError(
            f"calibration needs logits (n, classes) and targets (n,), not {(*logits.shape,)} and {(*targets.shape,)}"
        )
    if logits.isnan().any():
        raise TombolaError("calibration needs finite logits, and some are NaN; train with a lower learning rate")
    confidence, chosen = logits.double().softmax(1).max(1)
    gap = (chosen == targets).double() - confidence
    bin_of_each = (confidence * bins).ceil().long() - 1
    return float(torch.bincount(bin_of_each, weights=gap).abs().sum() / len(targets))


def _scores(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    # In float64, where integers and all shorter floats keep their order.
    inside, outside = inside.double(), outside.to(inside.device).double()
    for name, scores in (("inside", inside), ("outside", outside)):
        if scores.ndim != 1 or not len(scores) or scores.isnan().any():
            raise TombolaError(f"the {name} scores must be one number a sample, at least one and none of them NaN")
    return inside, outside
