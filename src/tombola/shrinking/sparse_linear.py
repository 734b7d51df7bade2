"""Runs linear layers of unstructured tickets in CSR, where measurements show that it pays."""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.shrinking.csr_kernels import kernels
from tombola.shrinking.cutting import replace
from tombola.tickets import (
    Mask,
    Ticket,
    bare,
    check_fits,
    check_whole,
    device_of,
    joined,
    modules_of,
    parameters_of,
    zeros_of,
)

REPEATS = 15
MIN_GAIN = 1.1
"""A sparse kernel replaces the dense product only if it is this many times as fast."""


class SparsityWarning(UserWarning):
    """Some layers do not run faster sparse."""


@dataclass(frozen=True)
class LayerTiming:
    """The measured seconds of one linear layer.

    Args:
        layer: its name.
        density: the kept share of its weights.
        seconds: by kernel, and "dense": the median of interleaved runs.

    Examples:
        >>> timing = LayerTiming("0", 0.05, {"dense": 3e-4, "scipy": 1e-4})
        >>> timing.best, round(timing.gain, 6)
        ('scipy', 3.0)
    """

    layer: str
    density: float
    seconds: Mapping[str, float]

    @property
    def best(self) -> str:
        """The fastest kernel; "dense" unless another is more than a tenth faster."""
        fastest = min(self.seconds, key=lambda name: self.seconds[name])
        return fastest if self.seconds["dense"] > MIN_GAIN * self.seconds[fastest] else "dense"

    @property
    def gain(self) -> float:
        """How many times as fast as dense the best kernel is."""
        return self.seconds["dense"] / self.seconds[self.best]


class SparseLinear(nn.Module):
    """A linear layer with its weight in CSR, for inference on the CPU in float32.

    The output is a transposed view of (outputs, batch). Element-wise layers keep this layout, and the next sparse layer
    reads it without a copy. Inputs that require gradients, or lie on other devices or in other types, raise
    TombolaError.

    Args:
        weight: (outputs, inputs), dense, with zeros for what is removed.
        bias: (outputs,).
        kernel: a name in `kernels()`.

    Examples:
        >>> SparseLinear(torch.tensor([[0.0, 2.0]]), None, "scipy")(torch.ones(3, 2))
        tensor([[2.],
                [2.],
                [2.]])
    """

    crow: Tensor
    column: Tensor
    value: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, kernel: str) -> None:
        super().__init__()
        matrix = csr_array(weight.numpy())
        self.kernel = kernel
        self.outputs, self.inputs = weight.shape
        self.register_buffer("crow", torch.from_numpy(matrix.indptr))
        self.register_buffer("column", torch.from_numpy(matrix.indices))
        self.register_buffer("value", torch.from_numpy(matrix.data))
        self.register_buffer("bias", torch.zeros(self.outputs) if bias is None else bias.clone())

    @cached_property
    def weight(self) -> csr_array:
        """The weight as SciPy's matrix, which shares the buffers' memory."""
        parts = (self.value.numpy(), self.column.numpy(), self.crow.numpy())
        return csr_array(parts, shape=(self.outputs, self.inputs))

    def __getstate__(self) -> dict[str, Any]:
        # Without the cached matrix: a copy's buffers have other memory, which its matrix has to share.
        return {key: value for key, value in super().__getstate__().items() if key != "weight"}

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32 or (torch.is_grad_enabled() and x.requires_grad):
            raise TombolaError(
                "a sparse layer runs in float32 on the CPU and without gradients; train the masked network, "
                "and call the sparse one under torch.no_grad()"
            )
        features = x.detach().reshape(-1, self.inputs).t().contiguous().numpy()
        outputs = kernels()[self.kernel](self.weight, features, self.bias.numpy())
        return torch.from_numpy(outputs).t().reshape(*x.shape[:-1], self.outputs)

    def extra_repr(self) -> str:
        size = self.inputs * self.outputs
        return f"{self.inputs}, {self.outputs}, density={len(self.value) / max(size, 1):.3g}, kernel={self.kernel!r}"


def sparse(model: nn.Module, ticket: Ticket | Mask, *, batch: int = 256) -> nn.Module:
    """Make a copy of a trained network, for inference, with linear layers in CSR where that is faster.

    Each masked linear layer is timed dense, by SciPy and by numba (extra `fast`).

    Args:
        model: the trained network, in float32 on the CPU.
        ticket: its ticket or mask.
        batch: the number of samples in a call, for the timing.

    Returns:
        The copy, whose outputs are the masked network's to 1e-5; or the model itself, if no layer is faster sparse. A
        SparsityWarning names the layers that are not.

    Raises:
        TombolaError: see `timings`.

    Examples:
        >>> model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU())
        >>> mask = Mask.of({"0.weight": torch.eye(1024, dtype=torch.bool)})
        >>> type(sparse(model, mask, batch=1)[0]).__name__
        'SparseLinear'
    """
    mask = zeros_of(ticket)
    check_whole(model, "a sparse copy of it")
    measured = timings(model, mask, batch=batch)
    slow = [timing for timing in measured if timing.best == "dense"]
    if slow:
        layers = ", ".join(f"{timing.layer} (density {timing.density:.2%})" for timing in slow)
        unchanged = "; the model is returned unchanged" if len(slow) == len(measured) else ""
        warnings.warn(
            f"at batch {batch} sparsity saves no time in {layers}{unchanged}. Zeros save time only in linear layers "
            "with few weights left; removing whole channels always does",
            SparsityWarning,
            stacklevel=2,
        )
    chosen = {timing.layer: timing.best for timing in measured if timing.best != "dense"}
    if not chosen:
        return model
    network = bare(copy.deepcopy(model)).eval()
    for name, parameter in parameters_of(network).items():
        if name in mask:
            parameter.data[~mask[name]] = 0.0
    modules = modules_of(network)
    for name, kernel in chosen.items():
        layer = modules[name]
        assert isinstance(layer, nn.Linear)
        in_csr = SparseLinear(layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), kernel)
        if layer is network:
            network = in_csr
        else:
            replace(network, layer, in_csr)
    return network.requires_grad_(False)


def timings(model: nn.Module, ticket: Ticket | Mask, *, batch: int = 256) -> list[LayerTiming]:
    """Time every masked linear layer, dense and sparse, and compare each sparse result with the dense one.

    Args:
        model: the trained network.
        ticket: its ticket or mask.
        batch: the number of samples in a call.

    Returns:
        One timing for each layer, in the network's order.

    Raises:
        TombolaError: the network is not in float32 on the CPU, or the mask covers no linear layer.
    """
    mask = zeros_of(ticket)
    if batch < 1:
        raise TombolaError(f"batch is {batch}; give the number of samples that a call will have")
    check_fits(mask, parameters_of(model))
    layers = {
        name: layer
        for name, layer in modules_of(model).items()
        if type(layer) is nn.Linear and joined(name, "weight") in mask
    }
    if not layers:
        raise TombolaError("the ticket masks no linear layer, and only those are run sparse; shrink channels instead")
    if device_of(model).type != "cpu" or any(layer.weight.dtype != torch.float32 for layer in layers.values()):
        raise TombolaError("sparse layers run in float32 on the CPU; move the model there with model.cpu().float()")
    return [_timing(name, layer, mask[joined(name, "weight")], batch) for name, layer in layers.items()]


@torch.no_grad()
def _timing(name: str, layer: nn.Linear, kept: Tensor, batch: int) -> LayerTiming:
    """The timing of one layer at random inputs, laid out as a neighbour of the same kind would give them."""
    weight = torch.where(kept, layer.weight, 0.0)
    x = torch.randn(batch, layer.in_features)
    features = x.t().contiguous().t()  # as a sparse layer gives them; x is as a dense one does
    calls: dict[str, Callable[[], Tensor]] = {"dense": lambda: nn.functional.linear(x, weight, layer.bias)}
    for kernel in kernels():
        in_csr = SparseLinear(weight, layer.bias, kernel)
        calls[kernel] = lambda in_csr=in_csr: in_csr(features)
    expected = calls["dense"]()
    for kernel, call in calls.items():  # which also compiles numba's kernel before the timing
        if not np.allclose(call(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max() + 1)):
            raise TombolaError(f"the {kernel} product of '{name}' differs from the dense one; please report this")
    seconds: dict[str, list[float]] = {kernel: [] for kernel in calls}
    for _ in range(REPEATS):
        # In turn, so that a busy moment of the machine slows all of them.
        for kernel, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[kernel].append(time.perf_counter() - started)
    medians = {kernel: statistics.median(runs) for kernel, runs in seconds.items()}
    return LayerTiming(name, float(kept.float().mean()), medians)
