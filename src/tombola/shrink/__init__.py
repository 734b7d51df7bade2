"""Running what is left: smaller networks, and sparse layers where they are really faster."""

from tombola.shrink.cut import Kept, cut, within
from tombola.shrink.export import to_onnx
from tombola.shrink.files import NETWORK, WEIGHTS, load_small, save_small
from tombola.shrink.kernels import kernels
from tombola.shrink.plan import Plan
from tombola.shrink.shrink import ShrinkWarning, shrink, shrinking, smaller
from tombola.shrink.sparse import LayerTiming, SparseLinear, SparsityWarning, sparse, timings

__all__ = [
    "NETWORK",
    "WEIGHTS",
    "Kept",
    "LayerTiming",
    "Plan",
    "ShrinkWarning",
    "SparseLinear",
    "SparsityWarning",
    "cut",
    "kernels",
    "load_small",
    "save_small",
    "shrink",
    "shrinking",
    "smaller",
    "sparse",
    "timings",
    "to_onnx",
    "within",
]
