"""How much pre-training is enough: the saturation point of a curve, and the paper's formula for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from tombola.errors import TombolaError

Descent = Literal["sgd", "full"]


@dataclass(frozen=True)
class CurvePoint:
    """A greedy ticket that was drawn during training.

    Args:
        step: the optimizer steps before it.
        ticket: its metric on the validation split.
        whole: the whole network's metric there.
        loss: half the ticket's mean squared error on the examples that it was picked on.
        distinct: how many different neurons it has.
    """

    step: int
    ticket: float
    whole: float
    loss: float
    distinct: int


@dataclass(frozen=True)
class Saturation:
    """When tickets stopped getting better: the first draw within the tolerance of the best.

    Args:
        step: the optimizer steps before that draw.
        metric: its metric, smoothed as `saturation` says.
        best: the best smoothed metric.
        settled: whether as many judged draws as patience asks for came after it.
    """

    step: int
    metric: float
    best: float
    settled: bool


def saturation(curve: Sequence[CurvePoint], tolerance: float, patience: int, lower: bool = False) -> Saturation | None:
    """The saturation point of a curve; None before there is a draw.

    Draws are judged by medians of a draw and its two neighbours, so that one lucky or unlucky draw decides nothing. The
    first counts as it is, and the last waits for a neighbour.

    Args:
        curve: the draws in their order.
        tolerance: how much worse than the best a draw may be, in the metric's unit.
        patience: how many judged draws must follow for the point to be settled.
        lower: a smaller metric is better.

    Examples:
        >>> metrics = {1: 0.5, 2: 0.7, 4: 0.8, 8: 0.8, 16: 0.8}
        >>> curve = [CurvePoint(step, metric, 0.9, 0.1, 9) for step, metric in metrics.items()]
        >>> saturation(curve, tolerance=0.01, patience=1)
        Saturation(step=4, metric=0.8, best=0.8, settled=True)
    """
    if not curve:
        return None
    medians = [median(point.ticket for point in curve[index - 1 : index + 2]) for index in range(1, len(curve) - 1)]
    smoothed = [curve[0].ticket, *medians]
    sign = -1 if lower else 1
    best = max(smoothed, key=lambda metric: sign * metric)
    first = next(index for index, metric in enumerate(smoothed) if sign * metric >= sign * best - tolerance)
    return Saturation(curve[first].step, smoothed[first], best, len(smoothed) - 1 - first >= patience)


@dataclass(frozen=True)
class EnoughFormula:
    """The paper's threshold t ≥ −log k / log(1 − c · d/m²): after it, pruning to k neurons loses O(1/k).

    Wolfe et al., arXiv 2108.00259. With c = 1 it is a formula and no prediction; `fitted` finds a c from measurements.

    Args:
        constant: c, which the theory leaves open.
        descent: how the network trains: `sgd`, or `full` for gradient descent on all data, with d/m in place of d/m².
    """

    constant: float = 1.0
    descent: Descent = "sgd"

    def steps(self, inputs: int, examples: int, picks: int) -> float:
        """The steps that the formula asks for; none for a single pick.

        Args:
            inputs: d, the inputs of the network.
            examples: m, the training examples.
            picks: k.

        Examples:
            >>> round(EnoughFormula().steps(inputs=784, examples=1000, picks=100))
            5872
        """
        return -math.log(picks) / math.log1p(-self._rate(inputs, examples))

    def remaining(self, steps: int, inputs: int, examples: int) -> float:
        """The share of the initial loss that the theory leaves after so many steps, (1 − c · d/m²)^steps."""
        return (1 - self._rate(inputs, examples)) ** steps

    def told(self, inputs: int, examples: int, picks: int) -> str:
        """What the formula says, in a sentence that does not take it for a prediction."""
        try:
            steps = f"{self.steps(inputs, examples, picks):,.0f} steps"
        except TombolaError:
            steps = "nothing, since c · d is too large for so few examples"
        if self.constant == 1:
            return f"The formula with c = 1 says {steps}; that is no prediction, since theory leaves c open."
        return f"The formula with c = {self.constant:.3g} says {steps}."

    @staticmethod
    def fitted(
        measured: Sequence[tuple[int, float]], *, inputs: int, picks: int, descent: Descent = "sgd"
    ) -> EnoughFormula:
        """The formula through measured points: c is the geometric mean of the c that each point gives alone.

        Args:
            measured: pairs of training examples and the steps after which pre-training was enough.
            inputs: of the network.
            picks: of each ticket.
            descent: how the networks were trained.

        Raises:
            TombolaError: if nothing was measured, or for fewer than two picks.
        """
        if not measured:
            raise TombolaError("there is no measured saturation to fit c on; train longer, or on smaller sub-datasets")
        if picks < 2:
            raise TombolaError("for one pick the formula says no step whatever c is; ask for at least two picks")
        unfitted = EnoughFormula(descent=descent)
        constants = [-math.expm1(-math.log(picks) / steps) / unfitted._share(inputs, m) for m, steps in measured]
        return EnoughFormula(math.exp(fmean(map(math.log, constants))), descent)

    def _rate(self, inputs: int, examples: int) -> float:
        rate = self.constant * self._share(inputs, examples)
        if not 0 < rate < 1:
            raise TombolaError(
                f"the formula needs c · d/{'m²' if self.descent == 'sgd' else 'm'} between 0 and 1, but it is "
                f"{rate:.3g} for {inputs} inputs and {examples} examples; give more examples or a smaller c"
            )
        return rate

    def _share(self, inputs: int, examples: int) -> float:
        return inputs / (examples**2 if self.descent == "sgd" else examples)
