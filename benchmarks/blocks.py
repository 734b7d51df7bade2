"""Networks without residual blocks against the whole one, and what scoring blocks costs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

import tombola as tb
from benchmarks.measure import Figure, interleaved
from benchmarks.shrinking import SHAPE, flops, inference, training
from tombola import zoo
from tombola.structure import residual_blocks
from tombola.tickets import tensors_of

REMOVED = {"resnet56": (3, 12), "resnet110": (6, 24)}
BATCH, EPOCH = 64, 20_000
"""Images of a step, and of an epoch of the standard bench."""
USES = (("training", training, BATCH), ("inference", inference, BATCH), ("inference", inference, 1))


def figures() -> Iterator[Figure]:
    for name, counts in REMOVED.items():
        for count in counts:
            yield from without_blocks(name, count)
    yield from scoring("resnet56")


def without_blocks(name: str, count: int) -> Iterator[Figure]:
    """As many blocks fewer in each of the three stages; time saved against FLOPs saved, turned round."""
    whole, example = zoo.model(name, SHAPE, 10)(), torch.randn(4, *SHAPE)
    units = tb.structure.Blocks().units(whole, lambda own: own(example))
    removed = {stage: tuple(range(count // 3)) for stage in units.sizes}
    small = tb.shrink(whole, units.expand(units.kept(removed), tensors_of(whole)), example=example)
    saved = 1 - flops(small) / flops(whole)
    for what, make, batch in USES:
        times = interleaved({"whole": make(whole, batch), "small": make(small, batch)}, 15)
        yield Figure(
            f"FLOPs saved ÷ time saved ({name} without {count} blocks, {what}, batch {batch})",
            saved / max(1 - times.ratio("small", "whole"), 0.01),
            1 / 0.85 if batch == BATCH else None,
            f"{saved:.0%} of FLOPs; whole {1e3 * times.seconds['whole']:.0f} ms",
            times.spread,
        )


def scoring(name: str) -> Iterator[Figure]:
    """Scores of all blocks in forward passes of one batch, and SNIP's in an epoch of the standard bench."""
    model = zoo.model(name, SHAPE, 10)()
    batch = torch.randn(BATCH, *SHAPE), torch.randint(0, 10, (BATCH,))
    free = sum(bool(block.gives) for block in residual_blocks(model))
    variants = {
        "forward": inference(model, BATCH),
        "step": training(model, BATCH),
        "cka": lambda: tb.scores.FeatureSimilarity(1)(model, [batch]),
        "kl": lambda: tb.scores.OutputDivergence(1)(model, [batch]),
        "snip": lambda: tb.scores.snip(model, [batch], F.cross_entropy),
    }
    times, own = interleaved(variants, 5), f"{name}, batch {BATCH}"
    for score in ("cka", "kl"):
        what = f"{score} of {free} blocks ÷ forward pass of one batch ({own})"
        yield times.figure(what, score, "forward", (free + 1) / 2, f"forward {1e3 * times.seconds['forward']:.0f} ms")
    steps = -(-EPOCH // BATCH)
    share = times.seconds["snip"] / (steps * times.seconds["step"])
    yield Figure(f"snip of all blocks ÷ an epoch of {steps} steps ({own})", share, 0.01, "", times.spread)
