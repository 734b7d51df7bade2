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
    """SciPy's product, the fastest for a batch of one. Arguments and result as in `Kernel`."""
    if features.shape[1] == 1:
        return (weight @ features[:, 0] + bias)[:, None]
    return weight @ features + bias[:, None]


def by_numba(weight: csr_array, features: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Compiled, with the output rows in parallel on PyTorch's number of threads; for larger batches."""
    import numba

    outputs = np.empty((weight.shape[0], features.shape[1]), np.float32)
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # ty: ignore[missing-attribute]
    _compiled()(weight.indptr, weight.indices, weight.data, features, bias, outputs)
    # Where both libraries share one OpenMP, numba's number of threads becomes PyTorch's as well.
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return outputs


@cache
def kernels() -> dict[str, Kernel]:
    """The kernels that run here, by name: SciPy's, and numba's if the extra `fast` is installed.

    Examples:
        >>> kernels()["scipy"](csr_array([[0.0, 2.0]]), np.ones((2, 3)), np.zeros(1))
        array([[2., 2., 2.]])
    """
    return {"scipy": by_scipy} | ({"numba": by_numba} if find_spec("numba") else {})


@cache
def _compiled() -> Any:
    import numba

    @numba.njit(parallel=True, fastmath=True)
    def product(starts, columns, values, features, bias, outputs):
        for row in numba.prange(outputs.shape[0]):
            output = outputs[row]
            output[:] = bias[row]
            for entry in range(starts[row], starts[row + 1]):
                value, feature = values[entry], features[columns[entry]]
                # Over the batch, whose samples lie side by side, so that the compiler uses vector instructions.
                for sample in range(output.shape[0]):
                    output[sample] += value * feature[sample]

    return product
