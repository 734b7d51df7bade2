"""Linear layers in CSR against dense, and the whole of LeNet-300-100."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch

import tombola as tb
from benchmarks.measure import Figure, interleaved
from tombola import zoo
from tombola.shrink import SparsityWarning


def figures() -> Iterator[Figure]:
    for sparsity in (0.9, 0.95, 0.98):
        model = zoo.model("lenet-300-100", (784,), 10)().eval()
        mask = tb.select(tb.scores.random(model), 1 - sparsity, scope="layerwise")
        with tb.attach(mask, model):
            pass
        for batch in (1, 256):
            x = torch.randn(batch, 784)
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore", SparsityWarning)
                fast = tb.sparse(model, mask, batch=batch)
                times = interleaved({"dense": lambda: model(x), "sparse": lambda: fast(x)}, 200, warm=20)
            chosen = [own.best for own in tb.shrink.timings(model, mask, batch=batch)]
            note = f"dense {1e6 * times.seconds['dense']:.0f} µs; layers: {', '.join(chosen)}"
            what = f"tb.sparse ÷ dense (784-300-100-10, {sparsity:.0%} sparse, batch {batch})"
            yield Figure(what, times.ratio("sparse", "dense"), 1.05, note, times.spread)
