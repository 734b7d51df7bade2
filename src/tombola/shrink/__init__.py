"""Running what is left: sparse layers where they are really faster."""

from tombola.shrink.kernels import kernels
from tombola.shrink.sparse import LayerTiming, SparseLinear, SparsityWarning, sparse, timings

__all__ = ["LayerTiming", "SparseLinear", "SparsityWarning", "kernels", "sparse", "timings"]
