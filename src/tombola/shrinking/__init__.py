"""Smaller networks that compute what a masked one does, and sparse layers where measurements show that they pay."""

from tombola.shrinking.cutting import Kept, cut, within
from tombola.shrinking.export import to_onnx
from tombola.shrinking.plan import Plan
from tombola.shrinking.recalibration import AccuracyWarning, recalibrate
from tombola.shrinking.small_files import NETWORK, WEIGHTS, check_place, load_small, save_small
from tombola.shrinking.small_network import ShrinkWarning, preview, shrink, smaller, warn_if_whole
from tombola.sparse_inference import (
    LayerTiming,
    SparseCopy,
    SparseProgram,
    SparsityWarning,
    load_sparse,
    save_sparse,
    sparse,
    sparse_copy,
)

__all__ = [
    "NETWORK",
    "WEIGHTS",
    "AccuracyWarning",
    "Kept",
    "LayerTiming",
    "Plan",
    "ShrinkWarning",
    "SparseCopy",
    "SparseProgram",
    "SparsityWarning",
    "check_place",
    "cut",
    "load_small",
    "load_sparse",
    "preview",
    "recalibrate",
    "save_small",
    "save_sparse",
    "shrink",
    "smaller",
    "sparse",
    "sparse_copy",
    "to_onnx",
    "warn_if_whole",
    "within",
]
