"""What the figures of claims are counted in."""

from __future__ import annotations

from dataclasses import dataclass

from tombola.evidence import MARGIN


@dataclass(frozen=True)
class Unit:
    """What an arm's figures are counted in: how differences and the figures themselves are called, by what they are
    multiplied to be shown, and the difference that makes none.
    """

    name: str
    sign: str
    scale: float
    margin: float


POINTS = Unit("points", "%", 100, MARGIN)
RATIO = Unit("of the bound", "", 1, 1e-9)
