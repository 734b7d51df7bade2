"""What arms are compared by: which way is better, what difference counts as none, and how its numbers are written."""

from __future__ import annotations

import math
from dataclasses import dataclass

MARGIN = 0.005
"""Half a point: a smaller difference of shares, as of accuracies, counts as none."""


@dataclass(frozen=True)
class Measure:
    """What arms are compared by.

    Args:
        name: what it is called.
        lower: smaller is better.
        margin: a smaller difference counts as none, in the measure's own unit; None takes half a point for a share,
            and for other numbers the spread of the dense network's over its seeds (one standard deviation), so that
            what a change of seed does counts as none.
        share: its values are shares of 1, which are written in percent and their differences in points.

    Examples:
        >>> rmse = Measure("rmse", lower=True, margin=0.1, share=False)
        >>> rmse.amount(0.25), ACCURACY.amount(0.009)
        ('0.25', '0.90 points')
    """

    name: str = "accuracy"
    lower: bool = False
    margin: float | None = None
    share: bool = True

    @property
    def sign(self) -> int:
        """What a difference is multiplied by so that more is better."""
        return -1 if self.lower else 1

    @property
    def unit(self) -> str:
        """What a difference is counted in."""
        return "points" if self.share else self.name

    @property
    def scale(self) -> int:
        """By what a value is multiplied to be written: a share counts in percent, and its differences in points."""
        return 100 if self.share else 1

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which values a mean can lie."""
        return (0.0, 1.0) if self.share else (-math.inf, math.inf)

    def text(self, value: float) -> str:
        """A value: in percent if it is a share."""
        return f"{fixed(100 * value)} %" if self.share else figures(value)

    def signed(self, difference: float) -> str:
        """A difference with its sign, in points if it is one of shares."""
        return fixed(100 * difference, "+") if self.share else figures(difference, "+.3")

    def amount(self, difference: float) -> str:
        """The size of a difference, with its unit."""
        return self._with_unit(self.size(difference))

    def size(self, difference: float) -> str:
        """The size of a difference, as a number of its unit."""
        return fixed(100 * abs(difference)) if self.share else figures(abs(difference), ".3")

    def about(self, difference: float) -> str:
        """The size of a difference to three digits, with its unit."""
        return self._with_unit(figures(self.scale * difference, ".3"))

    def limit(self, margin: float) -> str:
        """A margin, with its unit."""
        return self._with_unit(f"{100 * margin:g}" if self.share else f"{margin:.3g}")

    def _with_unit(self, size: str) -> str:
        return f"{size} points" if self.share else size


ACCURACY = Measure()


def settled(value: float) -> float:
    """A number without the last bits of its float, which hang on how it was summed: so it is rounded alike everywhere.

    Examples:
        >>> settled(0.1 + 0.2), 0.1 + 0.2
        (0.3, 0.30000000000000004)
    """
    return float(f"{value:.12g}")


def fixed(value: float, sign: str = "") -> str:
    """A percentage or points with two decimals.

    Args:
        value: the number.
        sign: "+" to write the sign of positive numbers too.

    Examples:
        >>> fixed(97.314), fixed(0.5, "+")
        ('97.31', '+0.50')
    """
    return minus(f"{settled(value):{sign}.2f}")


def figures(value: float, form: str = ".4") -> str:
    """A number that is no share, with four significant digits, or as a form says that f-strings know."""
    return minus(f"{settled(value):{form}g}")


def minus(text: str) -> str:
    """A number as text, with the one sign for minus that Tombola writes.

    Examples:
        >>> minus("-0.5")
        '−0.5'
    """
    return text.replace("-", "−")
