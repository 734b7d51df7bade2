"""The sparsest network that learns: the Cubist Spiral's two-phase search, pruning beside it, and a user's own task."""

from tombola.studies.sparsest.narrowing import DENSITIES, Narrowed, narrow
from tombola.studies.sparsest.outcome import Found, Sparsest, Tried
from tombola.studies.sparsest.pruning import STUDY, Cell, Fewest, Pruning, pruned
from tombola.studies.sparsest.runs import RECIPE, SCHEDULES, Schedule, Setting, settings, spiral_task
from tombola.studies.sparsest.search import hit_rates, sparsest, whole
from tombola.studies.sparsest.searching import Search, seconds_of
from tombola.studies.sparsest.structures import WHOLE, Structure, how_many, refined, structured, supports

__all__ = [
    "DENSITIES",
    "RECIPE",
    "SCHEDULES",
    "STUDY",
    "WHOLE",
    "Cell",
    "Fewest",
    "Found",
    "Narrowed",
    "Pruning",
    "Schedule",
    "Search",
    "Setting",
    "Sparsest",
    "Structure",
    "Tried",
    "hit_rates",
    "how_many",
    "narrow",
    "pruned",
    "refined",
    "seconds_of",
    "settings",
    "sparsest",
    "spiral_task",
    "structured",
    "supports",
    "whole",
]
