"""Tombola beside other libraries, in an environment that has them: `make bench-peers`.

Cutting: Torch-Pruning. Masked training: torch.nn.utils.prune and parametrize. Inference of an unstructured ticket:
torch's and SciPy's CSR, ONNX Runtime and OpenVINO.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import tombola as tb
from benchmarks import sparse, steps
from benchmarks.measure import Figure, interleaved
from tombola import zoo

LIBRARIES = ("torch", "torch-pruning", "scipy", "onnxruntime", "openvino")
CUT = {"resnet20": (3, 32, 32), "vgg11": (3, 32, 32)}
SPARSITY, BATCH, TURNS = 0.95, 256, 100


def figures() -> Iterator[Figure]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, shape in CUT.items():
            yield from cutting(name, shape)
        yield from masked_steps()
        for name in sparse.PERCEPTRONS:
            yield from inference(name)
    finally:
        torch.set_num_threads(before)


def versions() -> str:
    """The libraries that are here, with their versions."""
    told = []
    for library in LIBRARIES:
        try:
            told.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            told.append(f"{library} is not here")
    return ", ".join(told)


def operations(model: nn.Module, example: Tensor) -> int:
    """FLOPs of a call."""
    with FlopCounterMode(display=False) as counter:
        model(example)
    return counter.get_total_flops()


def cutting(name: str, shape: tuple[int, ...]) -> Iterator[Figure]:
    """Finding and cutting half of the channels by magnitude, beside Torch-Pruning."""
    import torch_pruning as tp

    make, example = zoo.model(name, shape, 10), torch.randn(1, *shape)

    def ours() -> nn.Module:
        model = make().eval()
        units = tb.Channels().units(model, lambda own: own(example.to(next(own.parameters()).device)))
        kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
        return tb.shrink(model, units.expand(kept, dict(model.named_parameters())), example=example)

    def theirs() -> nn.Module:
        model = make().eval()
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1:]
        importance = tp.importance.GroupMagnitudeImportance()
        tp.pruner.MagnitudePruner(model, example, importance, pruning_ratio=0.5, ignored_layers=last).step()
        return model

    times = interleaved({"ours": ours, "theirs": theirs}, 15)
    note = f"{1000 * times.seconds['ours']:.0f} and {1000 * times.seconds['theirs']:.0f} ms"
    yield times.paired(
        f"finding and cutting half of the channels ÷ Torch-Pruning ({name})", "ours", "theirs", 2.0, note
    )
    kept = [operations(own(), example) / operations(make().eval(), example) for own in (ours, theirs)]
    note = f"{kept[0]:.2f} and {kept[1]:.2f} of all"
    yield Figure(f"FLOPs that stay ÷ Torch-Pruning ({name})", kept[0] / kept[1], 1.05, note)


def masked_steps() -> Iterator[Figure]:
    """A masked training step, beside torch's ways to keep weights at zero."""
    for optimizer in ("sgd", "adam"):
        variants = {kind: steps.variant(kind, "lenet-300-100", (1, 28, 28), optimizer) for kind in steps.KINDS}
        times = interleaved(variants, 400)
        for rival in steps.KINDS[2:]:
            yield times.paired(f"masked step ÷ {rival} (lenet-300-100, batch 128, {optimizer})", "masked", rival, 1.0)


@torch.no_grad()
def inference(name: str) -> Iterator[Figure]:
    """A random ticket that runs sparse, beside each other way to run it."""
    model, mask = sparse.a_random_ticket(name, SPARSITY)
    x = torch.randn(BATCH, 784)
    fast = tb.shrinking.sparse(model, mask, x)
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: fast(x),
        "torch, dense": lambda: model(x),
        "torch's CSR": in_torch_csr(model, x),
        "SciPy's CSR": in_scipy_csr(model, x),
        "ONNX Runtime, dense": sparse.in_onnx_runtime(model, x, 1),
        "OpenVINO, dense": sparse.in_openvino(model, x, 1),
    }
    times = interleaved(calls, TURNS, warm=5)
    for rival in list(calls)[1:]:
        note = f"{1000 * times.seconds['ours']:.3g} and {1000 * times.seconds[rival]:.3g} ms"
        yield times.paired(f"sparse ÷ {rival} ({name}, {SPARSITY:.0%} sparse, batch {BATCH})", "ours", rival, 1.0, note)


def in_torch_csr(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """A call of linear layers and ReLUs with torch's CSR matrices."""
    layers = [own for own in model.modules() if isinstance(own, nn.Linear)]
    sparse_layers = [(own.weight.detach().to_sparse_csr(), own.bias.detach()[:, None]) for own in layers]

    def call() -> Tensor:
        columns = x.flatten(1).T
        for number, (weight, bias) in enumerate(sparse_layers, 1):
            columns = weight @ columns + bias
            columns = columns.relu() if number < len(sparse_layers) else columns
        return columns.T

    torch.testing.assert_close(call(), model(x), rtol=1e-4, atol=1e-4)
    return call


def in_scipy_csr(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """A call of linear layers and ReLUs with SciPy's CSR matrices."""
    import numpy as np
    from scipy.sparse import csr_matrix

    layers = [own for own in model.modules() if isinstance(own, nn.Linear)]
    sparse_layers = [(csr_matrix(own.weight.detach().numpy()), own.bias.detach().numpy()[:, None]) for own in layers]

    def call() -> object:
        columns = x.flatten(1).numpy().T
        for number, (weight, bias) in enumerate(sparse_layers, 1):
            columns = weight @ columns + bias
            columns = np.maximum(columns, 0) if number < len(sparse_layers) else columns
        return columns.T

    np.testing.assert_allclose(call(), model(x).numpy(), rtol=1e-4, atol=1e-4)
    return call
