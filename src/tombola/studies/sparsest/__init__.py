"""The sparsest network that learns: the Cubist Spiral's two-phase search, pruning beside it, and a user's own task."""

from tombola.studies.sparsest.outcome import Found, Sparsest, Tried
from tombola.studies.sparsest.runs import RECIPE, SCHEDULES, Schedule, Setting, settings, spiral_task
from tombola.studies.sparsest.search import sparsest, whole
from tombola.studies.sparsest.searching import Search
from tombola.studies.sparsest.structures import WHOLE, Structure, how_many, refined, structured, supports

__all__ = [
    "RECIPE",
    "SCHEDULES",
    "WHOLE",
    "Found",
    "Schedule",
    "Search",
    "Setting",
    "Sparsest",
    "Structure",
    "Tried",
    "how_many",
    "refined",
    "settings",
    "sparsest",
    "spiral_task",
    "structured",
    "supports",
    "whole",
]
