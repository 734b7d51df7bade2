"""Connectivity: what lies on the line between two trained networks, and from where training is stable."""

from tombola.connectivity.copies import Copies, find_copies
from tombola.connectivity.instability import Pair, Point, Stability
from tombola.connectivity.lines import Ends, Line, Statistics, barrier
from tombola.connectivity.mask_overlap import Overlap, distance_matrix, overlap
from tombola.connectivity.matching import Matching, match
from tombola.connectivity.network_distances import Landscape, landscape
from tombola.connectivity.other_data import carry
from tombola.connectivity.stable_points import stability
from tombola.connectivity.trained_rounds import Solution, Solutions, solutions
from tombola.connectivity.training_distance import training_distances
from tombola.connectivity.transferring import Transfer, transfer

__all__ = [
    "Copies",
    "Ends",
    "Landscape",
    "Line",
    "Matching",
    "Overlap",
    "Pair",
    "Point",
    "Solution",
    "Solutions",
    "Stability",
    "Statistics",
    "Transfer",
    "barrier",
    "carry",
    "distance_matrix",
    "find_copies",
    "landscape",
    "match",
    "overlap",
    "solutions",
    "stability",
    "training_distances",
    "transfer",
]
