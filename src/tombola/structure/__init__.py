"""Units: what in a network can be pruned, and what lives and dies together."""

from tombola.structure.granularity import Granularity, UnitMap, Weights
from tombola.structure.prunable import Prunable, prunable
from tombola.structure.units import Slice, UnitGroup, Units

__all__ = ["Granularity", "Prunable", "Slice", "UnitGroup", "UnitMap", "Units", "Weights", "prunable"]
