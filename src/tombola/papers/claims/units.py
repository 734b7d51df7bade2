"""The units of claims' figures."""

from __future__ import annotations

from dataclasses import dataclass

from tombola.evidence import MARGIN


@dataclass(frozen=True)
class Unit:
    """The unit of an arm's figures.

    Args:
        name: how a difference of two figures is called, such as "points".
        sign: how a figure is called, such as "%".
        scale: what a figure is multiplied by to be shown.
        margin: the largest difference that counts as none, before it is scaled.

    Examples:
        >>> epochs = Unit("epochs", "epochs", 1, 0.5)
        >>> f"{epochs.scale * 12:g} {epochs.sign}"
        '12 epochs'
    """

    name: str
    sign: str
    scale: float
    margin: float


POINTS = Unit("points", "%", 100, MARGIN)
RATIO = Unit("of the bound", "", 1, 1e-9)
