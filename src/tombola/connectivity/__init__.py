"""Connectivity: what lies on the line between two trained networks, and from where training is stable."""

from tombola.connectivity.copies import Copies, find_copies
from tombola.connectivity.lines import Ends, Line, Statistics, barrier
from tombola.connectivity.mask_overlap import Overlap, distance_matrix, overlap
from tombola.connectivity.matching import Matching, match
from tombola.connectivity.stable_points import Pair, Point, Stability, stability
from tombola.connectivity.transferring import Transfer, transfer

__all__ = [
    "Copies",
    "Ends",
    "Line",
    "Matching",
    "Overlap",
    "Pair",
    "Point",
    "Stability",
    "Statistics",
    "Transfer",
    "barrier",
    "distance_matrix",
    "find_copies",
    "match",
    "overlap",
    "stability",
    "transfer",
]
