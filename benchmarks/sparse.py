"""LeNet-300-100 with sparse linear layers against the dense network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch

import tombola as tb
from benchmarks.measure import Figure, interleaved
from tombola import zoo
from tombola.shrinking import SparsityWarning, timings


def figures() -> Iterator[Figure]:
    for sparsity in (0.9, 0.95, 0.98):
        for batch in (1, 256):
            yield at(sparsity, batch)


@torch.no_grad()
def at(sparsity: float, batch: int) -> Figure:
    model, x = zoo.model("lenet-300-100", (784,), 10)().eval(), torch.randn(batch, 784)
    mask = tb.select(tb.scores.random(model), 1 - sparsity, scope="layerwise")
    with tb.attach(mask, model), warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsityWarning)
        fast = tb.shrinking.sparse(model, mask, batch=batch)
        chosen = [layer.best for layer in timings(model, mask, batch=batch)]
        times = interleaved({"dense": lambda: model(x), "sparse": lambda: fast(x)}, 200, warm=20)
    note = f"dense {1e6 * times.seconds['dense']:.0f} µs; layers: {', '.join(chosen)}"
    what = f"tb.shrinking.sparse ÷ dense (784-300-100-10, {sparsity:.0%} sparse, batch {batch})"
    return times.figure(what, "sparse", "dense", 1.05, note)
