"""Greedy selection of 200 of 10,000 neurons on 10,000 examples, against products of the activations with a vector."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import tombola as tb
from benchmarks.measure import Figure, interleaved

EXAMPLES, NEURONS, PICKS = 10_000, 10_000, 200


def figures() -> Iterator[Figure]:
    yield selection(EXAMPLES, NEURONS, 10, PICKS, repeats=3)


def selection(examples: int, neurons: int, outputs: int, picks: int, repeats: int) -> Figure:
    """The whole selection against as many products as it has picks."""
    hidden, outgoing = torch.randn(examples, neurons), torch.randn(neurons, outputs) / neurons
    targets, vectors = torch.randn(examples, outputs), torch.randn(picks, examples)

    def products() -> None:
        for vector in vectors:
            hidden.T @ vector

    work = {"selection": lambda: tb.methods.forward_selection(hidden, outgoing, targets, picks), "products": products}
    times = interleaved(work, repeats, warm=1)
    what = (
        f"{picks} of {neurons:,} neurons on {examples:,} examples, {outputs} outputs ÷ {picks} products with a vector"
    )
    note = f"products {times.seconds['products']:.2f} s"
    return times.figure(what, "selection", "products", 1.3, note)
