"""The sparsest network that learns the Cubist Spiral (Zhang & Papyan, ICML 2024): its search, and pruning beside it."""

from tombola.papers.spiral.pruned_cells import Cell, Fewest
from tombola.papers.spiral.pruning_grid import STUDY, Pruning, pruned
from tombola.papers.spiral.search_outcome import FoundNetwork, SparsestNetwork, TriedStructure
from tombola.papers.spiral.search_state import Search
from tombola.papers.spiral.spiral_page import pruned_table, rates_table, write_sparsest
from tombola.papers.spiral.spiral_runs import RECIPE, SCHEDULES, Schedule, Setting, settings, spiral_task
from tombola.papers.spiral.structures import WHOLE, Structure, how_many, refined, structured, supports
from tombola.papers.spiral.two_phase_search import hit_rates, sparsest, whole_search

__all__ = [
    "RECIPE",
    "SCHEDULES",
    "STUDY",
    "WHOLE",
    "Cell",
    "Fewest",
    "FoundNetwork",
    "Pruning",
    "Schedule",
    "Search",
    "Setting",
    "SparsestNetwork",
    "Structure",
    "TriedStructure",
    "hit_rates",
    "how_many",
    "pruned",
    "pruned_table",
    "rates_table",
    "refined",
    "settings",
    "sparsest",
    "spiral_task",
    "structured",
    "supports",
    "whole_search",
    "write_sparsest",
]
