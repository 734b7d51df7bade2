"""Networks that multiply with kept weights alone, run by compiled kernels where measurements show that it pays."""

from tombola.sparse_inference.dense_twin import DenseTwin
from tombola.sparse_inference.execution import SparseProgram, with_zeros
from tombola.sparse_inference.layer_timing import LayerTiming, interleaved
from tombola.sparse_inference.sparse_files import load_sparse, save_sparse
from tombola.sparse_inference.sparse_network import SparseCopy, SparsityWarning, sparse, sparse_copy

__all__ = [
    "DenseTwin",
    "LayerTiming",
    "SparseCopy",
    "SparseProgram",
    "SparsityWarning",
    "interleaved",
    "load_sparse",
    "save_sparse",
    "sparse",
    "sparse_copy",
    "with_zeros",
]
