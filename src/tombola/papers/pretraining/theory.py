"""Theory of greedy selection: bounds on the loss of what it picks, as figures to hold measurements against.

Φᵢ is what neuron i gives for all examples, times the number of neurons; squared norms and losses are means over
examples, a loss ½ of one. The whole network is the mean of all Φᵢ and has the loss L; V is the variance of the Φᵢ about
it, D the diameter of their hull; l(k) is the loss after k picks, l(1) after the first. The bounds hold where a neuron
may be picked again.
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
    """D² of neurons' activations and outgoing weights, as `forward_selection` takes them.

    It takes the Gram matrix (neurons × neurons), which the selection itself never makes.
    """
    examples, neurons = hidden.shape
    given, weights = hidden.double(), neurons * outgoing.double()
    gram = (given.T @ given) * (weights @ weights.T) / examples
    norms = gram.diagonal()
    return float((norms[:, None] + norms[None] - 2 * gram).max())


def telescoped(picked: NeuronPicks) -> Tensor:
    """The bound (B) on each loss: l(k) ≤ l(1)/k + (k−1)/k · L + V · (H_k − 1)/(2k), H_k the harmonic number; proved.

    Averaging the step's objective over a uniformly drawn neuron gives k · l(k) ≤ (k−1) · l(k−1) + L + V/(2k).
    """
    count = _counted(picked)
    harmonic = (1 / count).cumsum(0)
    log = picked.variance * (harmonic - 1) / (2 * count)
    return float(picked.losses[0]) / count + (count - 1) / count * picked.whole + log


def logless(picked: NeuronPicks) -> Tensor:
    """The bound (C): √l(k) ≤ √L + √(V/(2k)), which has no logarithm; proved, by induction over k · ‖u_k − y‖."""
    return (picked.whole**0.5 + (picked.variance / (2 * _counted(picked))).sqrt()).square()


def paper(picked: NeuronPicks, squared_diameter: float, whole: float | None = None) -> Tensor:
    """The bound (A) as the paper is remembered to have it: l(k) ≤ l(1)/k + D²/(2k) + (k−1)/k · L; not proved here.

    whole: in the place of L.
    """
    count = _counted(picked)
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
    """The paper's theorem: (A) with ζ · (1 − c · d/m²)^steps · L₀ in the place of L.

    initial: the loss L₀ before training; inputs, examples: d and m; formula: its c (1 if none is given), and whether
    descent is stochastic or full, with d/m for d/m². The theory leaves c and ζ open. TombolaError where c · d is too
    large for so few examples.
    """
    left = (formula or EnoughFormula()).remaining(steps, inputs, examples)
    return paper(picked, squared_diameter, zeta * left * initial)


def bound_rows(picked: NeuronPicks, squared_diameter: float | None = None) -> list[dict[str, float | str]]:
    """What was measured and what the bounds allow after each pick, as a chart wants it; (A) where D² is known."""
    series = {"measured": picked.losses.cpu(), "bound (B)": telescoped(picked), "bound (C)": logless(picked)}
    if squared_diameter is not None:
        series["the paper's form (A)"] = paper(picked, squared_diameter)
    return [
        {"series": name, "picks": place, "loss": float(loss)}
        for name, own in series.items()
        for place, loss in enumerate(own, start=1)
    ]


def _counted(picked: NeuronPicks) -> Tensor:
    return torch.arange(1, len(picked.losses) + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Growth:
    """How the steps that are enough grow with the examples m: a · m^exponent, or offset + slope · ln m.

    misfits: root mean square of ln(measured / fitted), of each.
    """

    exponent: float
    factor: float
    power_misfit: float
    offset: float
    slope: float
    logarithm_misfit: float

    def power_law(self, examples: int) -> float:
        """What the power law says for a size."""
        return self.factor * examples**self.exponent

    def logarithm(self, examples: int) -> float:
        """What the logarithm says for it."""
        return self.offset + self.slope * math.log(examples)

    @staticmethod
    def of(measured: Sequence[tuple[int, float]]) -> Growth:
        """Both fitted to the logarithms of (examples, steps), so that each size counts as much; of at least three."""
        if len({examples for examples, _ in measured}) < 3:
            raise TombolaError("growth is fitted to at least three sizes; measure more sub-datasets")
        log_m, log_t = (np.log(np.array(own, dtype=float)) for own in zip(*measured, strict=True))
        exponent, factor = np.polyfit(log_m, log_t, 1)

        def off(parameters: np.ndarray) -> np.ndarray:
            fitted = parameters[0] + parameters[1] * log_m
            return log_t - np.log(np.maximum(fitted, 1e-9))

        slope, offset = np.polyfit(log_m, np.exp(log_t), 1)
        positive = (offset + slope * log_m > 0).all()
        begin = (offset, slope) if positive else (float(np.exp(log_t).mean()), 0.0)
        found = least_squares(off, begin)
        return Growth(
            exponent=float(exponent),
            factor=float(np.exp(factor)),
            power_misfit=_root_mean_square(log_t - factor - exponent * log_m),
            offset=float(found.x[0]),
            slope=float(found.x[1]),
            logarithm_misfit=_root_mean_square(found.fun),
        )


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
