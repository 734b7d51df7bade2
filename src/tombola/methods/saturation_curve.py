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
    """A greedy ticket drawn during training: the optimizer steps before it, its metric and the whole network's.

    loss: ½ of the mean squared error of the ticket on the examples that it was chosen on; distinct: its neurons.
    """

    step: int
    ticket: float
    whole: float
    loss: float
    distinct: int


@dataclass(frozen=True)
class Saturation:
    """When tickets stopped getting better: the first draw within the tolerance of the best.

    Both are judged by medians of a draw and its two neighbours, so that one lucky or unlucky draw decides nothing; the
    first counts as it is, and the last waits for a neighbour. settled: whether as many judged draws as patience asks
    for came after it.
    """

    step: int
    metric: float
    best: float
    settled: bool


def saturation(curve: Sequence[CurvePoint], tolerance: float, patience: int) -> Saturation | None:
    """The saturation point of a curve; None before there is a draw.

    Examples:
        >>> metrics = {1: 0.5, 2: 0.7, 4: 0.8, 8: 0.8, 16: 0.8}
        >>> curve = [Drawn(step, metric, 0.9, 0.1, 9) for step, metric in metrics.items()]
        >>> saturation(curve, tolerance=0.01, patience=1)
        Saturation(step=4, metric=0.8, best=0.8, settled=True)
    """
    if not curve:
        return None
    inner = [median(own.ticket for own in curve[at - 1 : at + 2]) for at in range(1, len(curve) - 1)]
    smooth = [curve[0].ticket, *inner]
    best = max(smooth)
    first = next(at for at, metric in enumerate(smooth) if metric >= best - tolerance)
    return Saturation(curve[first].step, smooth[first], best, len(smooth) - 1 - first >= patience)


@dataclass(frozen=True)
class EnoughFormula:
    """The paper's threshold t ≥ −log k / log(1 − c · d/m²): pre-training after which pruning to k neurons loses O(1/k).

    constant: c, which the theory leaves open; descent: `sgd`, or `full` for gradient descent on all data, with d/m in
    place of d/m² (Wolfe et al., arXiv 2108.00259). With c = 1 it is a formula and not a prediction; `fitted` finds a c.
    """

    constant: float = 1.0
    descent: Descent = "sgd"

    def steps(self, inputs: int, examples: int, picks: int) -> float:
        """The steps that it says, for d inputs, m examples and k picks; none for a single pick.

        Examples:
            >>> round(Formula().steps(inputs=784, examples=1000, picks=100))
            5872
        """
        return -math.log(picks) / math.log1p(-self._rate(inputs, examples))

    def remaining(self, steps: int, inputs: int, examples: int) -> float:
        """The share of the initial loss that the theory leaves after so many steps, (1 − c · d/m²)^steps."""
        return (1 - self._rate(inputs, examples)) ** steps

    def told(self, inputs: int, examples: int, picks: int) -> str:
        """What it says, in a sentence that does not take a formula for a prediction."""
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
        """The formula through measured (examples, steps): c is the geometric mean of the c that each alone gives."""
        if not measured:
            raise TombolaError("there is no measured saturation to fit c on; train longer, or on smaller sub-datasets")
        if picks < 2:
            raise TombolaError("for one pick the formula says no step whatever c is; ask for at least two picks")
        plain = EnoughFormula(descent=descent)
        each = [-math.expm1(-math.log(picks) / steps) / plain._share(inputs, m) for m, steps in measured]
        return EnoughFormula(math.exp(fmean(map(math.log, each))), descent)

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
