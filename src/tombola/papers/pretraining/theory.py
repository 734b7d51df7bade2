"""Theory of greedy selection: bounds on the loss after each pick, to compare measurements with.

Φᵢ is the output of neuron i for all examples, times the number of neurons. Squared norms are means over examples, and a
loss is half a squared norm. The whole network is the mean of all Φᵢ, and L its loss. V is the variance of the Φᵢ about
this mean, D the diameter of their hull. l(k) is the loss after k picks. The bounds hold where a neuron may be picked
again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from tombola.errors import TombolaError
from tombola.methods import EnoughFormula, NeuronPicks


@torch.no_grad()
def squared_diameter(hidden: Tensor, outgoing: Tensor) -> float:
    """The squared diameter D² of the hull of the Φᵢ.

    It needs the memory of a Gram matrix (neurons × neurons), which the selection itself never makes.

    Args:
        hidden: activations, examples × neurons.
        outgoing: outgoing weights, neurons × outputs.

    Examples:
        >>> squared_diameter(torch.tensor([[1.0, -1.0]]), torch.ones(2, 1))
        16.0
    """
    examples, neurons = hidden.shape
    activations, weights = hidden.double(), neurons * outgoing.double()
    gram = (activations.T @ activations) * (weights @ weights.T) / examples
    norms = gram.diagonal()
    return float((norms[:, None] + norms[None] - 2 * gram).max())


def telescoped(picked: NeuronPicks) -> Tensor:
    """The bound (B) on each loss: l(k) ≤ l(1)/k + (k−1)/k · L + V · (H_k − 1)/(2k), H_k the harmonic number.

    It is proved: the mean of a step's objective over all neurons gives k · l(k) ≤ (k−1) · l(k−1) + L + V/(2k).
    """
    count = _pick_counts(picked)
    harmonic = (1 / count).cumsum(0)
    log = picked.variance * (harmonic - 1) / (2 * count)
    return float(picked.losses[0]) / count + (count - 1) / count * picked.whole + log


def logless(picked: NeuronPicks) -> Tensor:
    """The bound (C) on each loss, which has no logarithm: √l(k) ≤ √L + √(V/(2k)).

    It is proved by induction over k · ‖u_k − y‖, with u_k the mean of the first k picks and y the targets.
    """
    return (picked.whole**0.5 + (picked.variance / (2 * _pick_counts(picked))).sqrt()).square()


def paper(picked: NeuronPicks, squared_diameter: float, whole: float | None = None) -> Tensor:
    """The bound (A) in the paper's form as remembered: l(k) ≤ l(1)/k + D²/(2k) + (k−1)/k · L; not proved here.

    Args:
        picked: what greedy selection picked.
        squared_diameter: D².
        whole: takes the place of L if given.
    """
    count = _pick_counts(picked)
    loss = picked.whole if whole is None else whole
    return (float(picked.losses[0]) + squared_diameter / 2) / count + (count - 1) / count * loss


def after_pretraining(
    picked: NeuronPicks,
    squared_diameter: float,
    *,
    initial: float,
    steps: int,
    inputs: int,
    examples: int,
    formula: EnoughFormula | None = None,
    zeta: float = 1.0,
) -> Tensor:
    """The theorem of Wolfe et al. (TMLR 2024): (A) with ζ · (1 − c · d/m²)^steps · L₀ in place of L.

    Args:
        picked: what greedy selection picked.
        squared_diameter: D².
        initial: the loss L₀ before training.
        steps: of pre-training.
        inputs: d, how many inputs the network has.
        examples: m, how many training examples there are.
        formula: has c, and says whether descent is stochastic or full, which takes d/m in place of d/m²; c = 1 and
            stochastic if None.
        zeta: ζ; the theory leaves it open, as it does c.

    Raises:
        TombolaError: if c · d is too large for so few examples.
    """
    remaining = (formula or EnoughFormula()).remaining(steps, inputs, examples)
    return paper(picked, squared_diameter, zeta * remaining * initial)


def bound_rows(picked: NeuronPicks, squared_diameter: float | None = None) -> list[dict[str, float | str]]:
    """The measured losses and the bounds after each pick, as rows for a chart.

    Args:
        picked: what greedy selection picked.
        squared_diameter: D²; without it (A) is left out.
    """
    series = {"measured": picked.losses.cpu(), "bound (B)": telescoped(picked), "bound (C)": logless(picked)}
    if squared_diameter is not None:
        series["the paper's form (A)"] = paper(picked, squared_diameter)
    return [
        {"series": name, "picks": place, "loss": float(loss)}
        for name, losses in series.items()
        for place, loss in enumerate(losses, start=1)
    ]


def _pick_counts(picked: NeuronPicks) -> Tensor:
    return torch.arange(1, len(picked.losses) + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Growth:
    """How the steps that are enough grow with the number of examples m, by two laws.

    Args:
        exponent: of the power law, factor · m^exponent.
        factor: of the power law.
        power_misfit: root mean square of ln(measured / fitted) by the power law.
        offset: of the logarithm, offset + slope · ln m.
        slope: of the logarithm.
        logarithm_misfit: root mean square of ln(measured / fitted) by the logarithm.

    Examples:
        >>> growth = Growth.of([(100, 10.0), (400, 20.0), (1600, 40.0)])
        >>> round(growth.exponent, 3), round(growth.power_law(6400), 1)
        (0.5, 80.0)
    """

    exponent: float
    factor: float
    power_misfit: float
    offset: float
    slope: float
    logarithm_misfit: float

    def power_law(self, examples: int) -> float:
        """The steps that the power law gives for a size."""
        return self.factor * examples**self.exponent

    def logarithm(self, examples: int) -> float:
        """The steps that the logarithm gives for a size."""
        return self.offset + self.slope * math.log(examples)

    @staticmethod
    def of(measured: Sequence[tuple[int, float]]) -> Growth:
        """Fit both laws to the logarithm of the steps, so that relative errors count equally at every size.

        Args:
            measured: pairs of examples and steps, of at least three sizes.

        Raises:
            TombolaError: if there are fewer than three sizes.
        """
        if len({examples for examples, _ in measured}) < 3:
            raise TombolaError("growth is fitted to at least three sizes; measure more sub-datasets")
        log_m, log_t = (np.log(np.array(values, dtype=float)) for values in zip(*measured, strict=True))
        exponent, log_factor = np.polyfit(log_m, log_t, 1)

        def residuals(parameters: np.ndarray) -> np.ndarray:
            fitted = parameters[0] + parameters[1] * log_m
            return log_t - np.log(np.maximum(fitted, 1e-9))

        # Start from the line fitted to the steps themselves, unless it falls below 0, where there is no logarithm.
        slope, offset = np.polyfit(log_m, np.exp(log_t), 1)
        positive = (offset + slope * log_m > 0).all()
        start = (offset, slope) if positive else (float(np.exp(log_t).mean()), 0.0)
        fit = least_squares(residuals, start)
        return Growth(
            exponent=float(exponent),
            factor=float(np.exp(log_factor)),
            power_misfit=_root_mean_square(log_t - log_factor - exponent * log_m),
            offset=float(fit.x[0]),
            slope=float(fit.x[1]),
            logarithm_misfit=_root_mean_square(fit.fun),
        )


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
