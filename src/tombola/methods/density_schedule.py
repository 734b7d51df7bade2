"""How fast: the density after each round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from tombola.errors import TombolaError
from tombola.tickets import Scope, as_density

Schedule = Literal["exponential", "linear", "cubic"]
MOST = 10_000
"""Rounds of a search."""


def densities(final: float, rounds: int, schedule: Schedule = "exponential") -> list[float]:
    """The density after each round, falling from below 1 to exactly `final`.

    Args:
        final: the density after the last round, above 0 and at most 1.
        rounds: how many rounds, at least 1.
        schedule: `exponential` removes the same fraction of what remains each round, `linear` the same number of
            units, `cubic` many at first and few at the end.

    Raises:
        TombolaError: if there is no round, or `final` is no density.

    Examples:
        >>> [round(d, 3) for d in densities(0.125, 3)]
        [0.5, 0.25, 0.125]
    """
    if not 1 <= rounds <= MOST:
        raise TombolaError(f"rounds is {rounds}; give at least 1 and at most {MOST:,}")
    final = as_density(final)
    shares = [(step + 1) / rounds for step in range(rounds)]
    if schedule == "exponential":
        return [final**t for t in shares[:-1]] + [final]
    power = 3 if schedule == "cubic" else 1
    return [final + (1 - final) * (1 - t) ** power for t in shares[:-1]] + [final]


def rounds_for(density: float, share: float) -> int:
    """How many rounds leave the density when each removes about `share` of what remains.

    Args:
        density: the share to leave, above 0 and at most 1.
        share: what a round removes of the rest, between 0 and 1.

    Raises:
        TombolaError: if either is out of range.

    Examples:
        >>> rounds_for(0.0144, 0.2)
        19
    """
    if not 0 < share < 1:
        raise TombolaError(f"the share removed in a round is {share}; give a number between 0 and 1, as 0.2")
    density = as_density(density)
    # A twentieth of a round less: the densities that papers print are rounded, and must not cost another round.
    return max(1, math.ceil(math.log(density) / math.log(1 - share) - 0.05))


def scope_at(scope: Scope, density: float, final: float) -> tuple[Scope, float | None]:
    """The scope and the density to select with in a round.

    Where the scope gives a density for each layer, all of them fall together, by the share of the way (in logarithms)
    that the whole network's density has gone.
    """
    if not isinstance(scope, Mapping) or density == final:
        return scope, density
    progress = math.log(density) / math.log(final)
    return {name: layer_density**progress if layer_density > 0 else 0.0 for name, layer_density in scope.items()}, None
