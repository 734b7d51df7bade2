"""Running what is left: smaller networks, and sparse layers where they are really faster."""

from tombola.shrink.cut import Kept, cut
from tombola.shrink.kernels import kernels
from tombola.shrink.plan import Plan
from tombola.shrink.shrink import shrink, shrinking
from tombola.shrink.sparse import LayerTiming, SparseLinear, SparsityWarning, sparse, timings

__all__ = [
    "Kept",
    "LayerTiming",
    "Plan",
    "SparseLinear",
    "SparsityWarning",
    "cut",
    "kernels",
    "shrink",
    "shrinking",
    "sparse",
    "timings",
]
