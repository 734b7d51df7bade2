"""Sparse matrix times dense matrix, both feature-major: (outputs, inputs) in CSR by (inputs, batch)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

Kernel = Callable[[csr_array, np.ndarray, np.ndarray], np.ndarray]
"""(weight, features of shape (inputs, batch), bias of shape (outputs,)) → (outputs, batch)."""


def by_scipy(weight: csr_array, features: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """SciPy's product; the fastest at a batch of one."""
    if features.shape[1] == 1:
        return (weight @ features[:, 0] + bias)[:, None]
    return weight @ features + bias[:, None]


def by_numba(weight: csr_array, features: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Rows in parallel on PyTorch's number of threads, each an accumulation of whole batches; for larger batches."""
    import numba

    outputs = np.empty((weight.shape[0], features.shape[1]), np.float32)
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # ty: ignore[missing-attribute]
    _compiled()(weight.indptr, weight.indices, weight.data, features, bias, outputs)
    if torch.get_num_threads() != threads:  # Both use one OpenMP, where numba's count becomes everybody's.
        torch.set_num_threads(threads)
    return outputs


@cache
def kernels() -> dict[str, Kernel]:
    """What can be run here: SciPy, and numba where the extra `fast` is installed."""
    return {"scipy": by_scipy} | ({"numba": by_numba} if find_spec("numba") else {})


@cache
def _compiled() -> Any:
    import numba

    @numba.njit(parallel=True, fastmath=True)
    def product(starts, columns, values, features, bias, outputs):
        for row in numba.prange(outputs.shape[0]):
            own = outputs[row]
            own[:] = bias[row]
            for at in range(starts[row], starts[row + 1]):
                value, other = values[at], features[columns[at]]
                for sample in range(own.shape[0]):
                    own[sample] += value * other[sample]

    return product
