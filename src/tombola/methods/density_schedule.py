"""How fast: the density after each round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from tombola.errors import TombolaError
from tombola.tickets import Scope, as_density

Schedule = Literal["exponential", "linear", "cubic"]


def densities(final: float, rounds: int, schedule: Schedule = "exponential") -> list[float]:
    """The density after each of `rounds` rounds, falling from below 1 to exactly `final`.

    exponential: the same fraction of what remains each round; linear: the same number; cubic: fast at first.

    Examples:
        >>> [round(d, 3) for d in densities(0.125, 3)]
        [0.5, 0.25, 0.125]
    """
    if rounds < 1:
        raise TombolaError(f"rounds is {rounds}; give at least 1")
    final = as_density(final)
    shares = [(step + 1) / rounds for step in range(rounds)]
    if schedule == "exponential":
        return [final**t for t in shares[:-1]] + [final]
    power = 3 if schedule == "cubic" else 1
    return [final + (1 - final) * (1 - t) ** power for t in shares[:-1]] + [final]


def rounds_for(density: float, share: float) -> int:
    """Rounds that remove about `share` of what remains each time until `density` is left.

    Examples:
        >>> rounds_for(0.0144, 0.2)
        19
    """
    if not 0 < share < 1:
        raise TombolaError(f"the share removed in a round is {share}; give a number between 0 and 1, as 0.2")
    density = as_density(density)
    return max(1, math.ceil(math.log(density) / math.log(1 - share) - 0.05))


def scope_at(scope: Scope, density: float, final: float) -> tuple[Scope, float | None]:
    """Scope and density to select with at a round; densities given by layer fall as the whole does."""
    if not isinstance(scope, Mapping) or density == final:
        return scope, density
    progress = math.log(density) / math.log(final)
    return {name: own**progress if own > 0 else 0.0 for name, own in scope.items()}, None
