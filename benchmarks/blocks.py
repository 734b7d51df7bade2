"""Networks without some residual blocks against the dense network, and the cost of scoring blocks."""

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
    """FLOPs saved ÷ time saved, so that a bar is an upper one; a third of the blocks goes from each of three stages."""
    dense, example = zoo.model(name, SHAPE, 10)(), torch.randn(4, *SHAPE)
    units = tb.structure.Blocks().units(dense, lambda model: model(example))
    removed = {stage: tuple(range(count // 3)) for stage in units.sizes}
    small = tb.shrink(dense, units.expand(units.kept(removed), tensors_of(dense)), example=example)
    saved = 1 - flops(small) / flops(dense)
    for use, work, batch in USES:
        times = interleaved({"whole": work(dense, batch), "small": work(small, batch)}, 15)
        yield Figure(
            f"FLOPs saved ÷ time saved ({name} without {count} blocks, {use}, batch {batch})",
            saved / max(1 - times.ratio("small", "whole"), 0.01),
            1 / 0.85 if batch == BATCH else None,
            f"{saved:.0%} of FLOPs; whole {1e3 * times.seconds['whole']:.0f} ms",
            times.spread,
        )


def scoring(name: str) -> Iterator[Figure]:
    """Scores of all blocks in forward passes of one batch, and SNIP's in an epoch of the standard bench."""
    model = zoo.model(name, SHAPE, 10)()
    batch = torch.randn(BATCH, *SHAPE), torch.randint(0, 10, (BATCH,))
    removable = sum(bool(block.gives) for block in residual_blocks(model))
    variants = {
        "forward": inference(model, BATCH),
        "step": training(model, BATCH),
        "cka": lambda: tb.scores.FeatureSimilarity(1)(model, [batch]),
        "kl": lambda: tb.scores.OutputDivergence(1)(model, [batch]),
        "snip": lambda: tb.scores.snip(model, [batch], F.cross_entropy),
    }
    times, setup = interleaved(variants, 5), f"{name}, batch {BATCH}"
    note = f"forward {1e3 * times.seconds['forward']:.0f} ms"
    for score in ("cka", "kl"):
        what = f"{score} of {removable} blocks ÷ forward pass of one batch ({setup})"
        yield times.figure(what, score, "forward", (removable + 1) / 2, note)
    steps = -(-EPOCH // BATCH)
    share = times.seconds["snip"] / (steps * times.seconds["step"])
    yield Figure(f"snip of all blocks ÷ an epoch of {steps} steps ({setup})", share, 0.01, "", times.spread)
