"""The sparsest network that learns the Cubist Spiral (Zhang & Papyan, ICML 2024): its search, and pruning beside it."""

from tombola.papers.spiral.cells import Cell, Fewest
from tombola.papers.spiral.outcome import Found, Sparsest, Tried
from tombola.papers.spiral.page import pruned_table, rates_table, write_sparsest
from tombola.papers.spiral.pruning import STUDY, Pruning, pruned
from tombola.papers.spiral.runs import RECIPE, SCHEDULES, Schedule, Setting, settings, spiral_task
from tombola.papers.spiral.search import hit_rates, sparsest, whole
from tombola.papers.spiral.searching import Search, seconds_of
from tombola.papers.spiral.structures import WHOLE, Structure, how_many, refined, structured, supports

__all__ = [
    "RECIPE",
    "SCHEDULES",
    "STUDY",
    "WHOLE",
    "Cell",
    "Fewest",
    "Found",
    "Pruning",
    "Schedule",
    "Search",
    "Setting",
    "Sparsest",
    "Structure",
    "Tried",
    "hit_rates",
    "how_many",
    "pruned",
    "pruned_table",
    "rates_table",
    "refined",
    "seconds_of",
    "settings",
    "sparsest",
    "spiral_task",
    "structured",
    "supports",
    "whole",
    "write_sparsest",
]
