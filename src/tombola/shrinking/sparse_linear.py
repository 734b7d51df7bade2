"""Unstructured tickets at work: linear layers in CSR, where measuring shows that it pays."""

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
from tombola.tickets import Mask, Ticket, bare, check_fits, device_of, joined, modules_of, parameters_of

REPEATS = 15
WORTH = 1.1


class SparsityWarning(UserWarning):
    """Layers in which sparsity buys nothing."""


@dataclass(frozen=True)
class LayerTiming:
    """Seconds of one linear layer at a batch, dense and by each sparse kernel, medians of interleaved runs."""

    layer: str
    density: float
    seconds: Mapping[str, float]

    @property
    def best(self) -> str:
        """The fastest way; `dense` unless another is at least a tenth faster."""
        fastest = min(self.seconds, key=lambda name: self.seconds[name])
        return fastest if self.seconds["dense"] > WORTH * self.seconds[fastest] else "dense"

    @property
    def gain(self) -> float:
        """How many times faster than dense the best way is."""
        return self.seconds["dense"] / self.seconds[self.best]


class SparseLinear(nn.Module):
    """A linear layer whose weight is CSR, for inference on the CPU in float32.

    Works feature-major: its output is a transposed view, which element-wise layers keep and the next sparse layer
    takes without a copy. Raises TombolaError for inputs that want gradients, and for other devices and types.
    """

    crow: Tensor
    column: Tensor
    value: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, kernel: str) -> None:
        super().__init__()
        own = csr_array(weight.numpy())
        self.kernel = kernel
        self.outputs, self.inputs = weight.shape
        self.register_buffer("crow", torch.from_numpy(own.indptr))
        self.register_buffer("column", torch.from_numpy(own.indices))
        self.register_buffer("value", torch.from_numpy(own.data))
        self.register_buffer("bias", torch.zeros(self.outputs) if bias is None else bias.clone())

    @cached_property
    def weight(self) -> csr_array:
        """The buffers as SciPy's matrix, on the same memory."""
        parts = (self.value.numpy(), self.column.numpy(), self.crow.numpy())
        return csr_array(parts, shape=(self.outputs, self.inputs))

    def __getstate__(self) -> dict[str, Any]:
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
    """A copy of a trained network, for inference, that runs its sparse linear layers in CSR where that is faster.

    batch: samples a call, at which dense, SciPy's and numba's (extra `fast`) products are timed for every masked
    linear layer. The copy's dead weights are zero and its outputs those of the masked network to 1e-5. Where no
    layer gains, the model itself is returned; a SparsityWarning names the layers that gain nothing.
    """
    mask = ticket.mask if isinstance(ticket, Ticket) else ticket
    measured = timings(model, mask, batch=batch)
    idle = [own for own in measured if own.best == "dense"]
    if idle:
        rows = ", ".join(f"{own.layer} (density {own.density:.2%})" for own in idle)
        unchanged = "; the model is returned unchanged" if len(idle) == len(measured) else ""
        warnings.warn(
            f"at batch {batch} sparsity buys nothing in {rows}{unchanged}. Zeros save time only where few are left, in "
            "linear layers; removing whole channels always does",
            SparsityWarning,
            stacklevel=2,
        )
    chosen = {own.layer: own.best for own in measured if own.best != "dense"}
    if not chosen:
        return model
    twin = bare(copy.deepcopy(model)).eval()
    for name, parameter in parameters_of(twin).items():
        if name in mask:
            parameter.data[~mask[name]] = 0.0
    layers = modules_of(twin)
    for name, kernel in chosen.items():
        layer = layers[name]
        assert isinstance(layer, nn.Linear)
        own = SparseLinear(layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), kernel)
        if layer is twin:
            twin = own
        else:
            replace(twin, layer, own)
    return twin.requires_grad_(False)


def timings(model: nn.Module, ticket: Ticket | Mask, *, batch: int = 256) -> list[LayerTiming]:
    """How long every masked linear layer takes at a batch, dense and sparse, each result held against dense's.

    Raises TombolaError if the network is not in float32 on the CPU, or has no masked linear layer.
    """
    mask = ticket.mask if isinstance(ticket, Ticket) else ticket
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
    """Each way takes and gives what its neighbours of the same kind would: features for sparse, rows for dense."""
    weight = torch.where(kept, layer.weight, 0.0)
    x = torch.randn(batch, layer.in_features)
    features = x.t().contiguous().t()
    ways: dict[str, Callable[[], Tensor]] = {"dense": lambda: nn.functional.linear(x, weight, layer.bias)}
    for kernel in kernels():
        own = SparseLinear(weight, layer.bias, kernel)
        ways[kernel] = lambda own=own: own(features)
    expected = ways["dense"]()
    for kernel, way in ways.items():
        if not np.allclose(way(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max() + 1)):
            raise TombolaError(f"the {kernel} product of '{name}' differs from the dense one; please report this")
    seconds: dict[str, list[float]] = {kernel: [] for kernel in ways}
    for _ in range(REPEATS):
        for kernel, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[kernel].append(time.perf_counter() - started)
    medians = {kernel: statistics.median(own) for kernel, own in seconds.items()}
    return LayerTiming(name, float(kept.float().mean()), medians)
