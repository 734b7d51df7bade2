"""Units: what in a network can be pruned, and what lives and dies together."""

from tombola.structure.granularity import NM, Granularity, UnitMap, Weights, granularity
from tombola.structure.prunable import Prunable, prunable
from tombola.structure.units import Slice, UnitGroup, Units

__all__ = [
    "NM",
    "Granularity",
    "Prunable",
    "Slice",
    "UnitGroup",
    "UnitMap",
    "Units",
    "Weights",
    "granularity",
    "prunable",
]
