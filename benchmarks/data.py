"""Batches from memory against a DataLoader over the same tensors; selection against one torch.topk."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, TensorDataset

import tombola as tb
from benchmarks.measure import Figure, interleaved
from tombola.training.batches import MemoryBatches


def figures() -> Iterator[Figure]:
    inputs, targets = torch.randn(20_000, 1, 28, 28), torch.randint(0, 10, (20_000,))
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=128, shuffle=True)

    def exhaust(batches) -> None:
        for _ in batches:
            pass

    times = interleaved(
        {"memory": lambda: exhaust(MemoryBatches(inputs, targets, 128, seed=0)), "loader": lambda: exhaust(loader)}, 9
    )
    note = f"DataLoader {1e3 * times.seconds['loader']:.0f} ms a pass over 20,000 images"
    yield times.figure("in-memory batches ÷ DataLoader(TensorDataset)", "memory", "loader", 0.4, note)

    scores = {f"layer{i}": torch.randn(1000, 2500) for i in range(10)}
    flat = torch.cat([score.flatten() for score in scores.values()])
    count = round(0.1 * flat.numel())
    times = interleaved({"select": lambda: tb.select(scores, 0.1), "topk": lambda: torch.topk(flat, count)}, 5, warm=1)
    note = f"torch.topk {times.seconds['topk']:.1f} s"
    yield times.figure("exact global selection from 25 M scores ÷ torch.topk", "select", "topk", 0.25, note)
