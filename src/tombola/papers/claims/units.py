"""The units of claims' figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tombola.evidence import MARGIN


@dataclass(frozen=True)
class Unit:
    """The unit of an arm's figures.

    Args:
        name: how a difference of two figures is called, such as "points".
        sign: how a figure is called, such as "%".
        scale: what a figure is multiplied by to be shown.
        margin: the largest difference that counts as none, before it is scaled.
        step: the smallest difference that two figures can have but 0, as a whole epoch; 0 if there is none.
        runs: if each figure is a share of runs that did something, of how many; 0 for other figures.
        ends: the least and the most that a figure can be, before it is scaled.

    Examples:
        >>> epochs = Unit("epochs", "epochs", 1, 0.5, step=1)
        >>> f"{epochs.scale * 12:g} {epochs.sign}"
        '12 epochs'
    """

    name: str
    sign: str
    scale: float
    margin: float
    step: float = 0.0
    runs: int = 0
    ends: tuple[float, float] = (-math.inf, math.inf)

    @property
    def furthest(self) -> float:
        """The largest difference that two figures can have."""
        return self.ends[1] - self.ends[0]

    def amount(self, value: float) -> str:
        """A difference as text, with its sign and unit.

        Examples:
            >>> POINTS.amount(-0.0123)
            '−1.23 points'
        """
        return f"{self.signed(value)} {self.name}"

    def signed(self, value: float) -> str:
        """A difference as text, with its sign alone."""
        shown = self.scale * value
        digits = 3 if 0 < abs(shown) < 0.1 else 2 if abs(shown) < 100 else 1 if abs(shown) < 1000 else 0
        text = f"{shown:+,.{digits}f}"
        return text.replace("-", "−") if text.strip("+-0.") else text.lstrip("+-")

    def size(self, value: float) -> str:
        """A size as text, with its unit."""
        return f"{self.scale * abs(value):.3g} {self.name}"


FRACTION = (0.0, 1.0)
"""The ends of figures that are shares of 1."""
POINTS = Unit("points", "%", 100, MARGIN, ends=FRACTION)
GAIN = replace(POINTS, ends=(-1.0, 1.0))
"""Of figures that are differences of two shares themselves."""
RATIO = Unit("of the bound", "", 1, 1e-9)
