"""Tries a part of a network sparse beside dense, and notes what its layers take."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.sparse_inference.compiler import why_not_compiled
from tombola.sparse_inference.execution import SparseProgram
from tombola.sparse_inference.layer_timing import MIN_GAIN, LayerTiming, interleaved
from tombola.sparse_inference.program import TILES
from tombola.sparse_inference.segments import Segment

TOLERANCE = 1e-4
"""How far outputs may lie from the masked network's, relative to the largest."""


@dataclass
class Trial:
    """The layers' times as they become known.

    Args:
        densities: of the masked layers, by name.
        timings: by name.
    """

    densities: Mapping[str, float]
    timings: dict[str, LayerTiming] = field(default_factory=dict)

    def note(self, layer: str, seconds: Mapping[str, float], chosen: str, why: str = "") -> None:
        """Keep what a layer takes, if it is masked."""
        if layer in self.densities:
            self.timings[layer] = LayerTiming(layer, self.densities[layer], seconds, chosen, why)

    def found(self, why: str) -> tuple[LayerTiming, ...]:
        """All timings, in the network's order; `why` is said of layers that were not tried."""
        for layer in self.densities:
            if layer not in self.timings:
                self.note(layer, {}, "dense", why)
        return tuple(self.timings[layer] for layer in self.densities)


def faster_part(
    part: Segment, dense: nn.Module, x: Tensor, tried: Trial, name: str | None = None
) -> SparseProgram | None:
    """The part as a program if it computes the same faster; notes what its layers take.

    Args:
        part: a part of the network.
        dense: the same in PyTorch.
        x: an input of the part.
        tried: where times are noted.
        name: of the part's only layer in the network, if it is another than in the part.
    """
    inputs, outputs = tuple(x.shape[1:]), tuple(part.result.meta["value"][1:])
    programs = {
        str(tile): SparseProgram(part.program, inputs, outputs, tile).eval() for tile in TILES if tile < 2 * len(x)
    }
    programs = programs or {str(TILES[0]): SparseProgram(part.program, inputs, outputs, TILES[0]).eval()}
    steps = {(step.layer if name is None else name): at for at, step in enumerate(part.program.steps) if step.layer}
    if not agree(next(iter(programs.values()))(x), dense(x)):
        for layer in steps:
            tried.note(layer, {}, "dense", "called, it computes something else than its layers")
        return None
    seconds = interleaved(in_both_layouts(dense, x) | {tile: partial(own, x) for tile, own in programs.items()})
    best = min(programs, key=lambda tile: seconds[tile])
    own_dense = min(value for how, value in seconds.items() if how not in programs)
    pays = own_dense > MIN_GAIN * seconds[best]
    whole = {"dense": own_dense, "sparse": seconds[best]}
    is_whole = len(steps) == 1 or why_not_compiled()  # numba runs no step by itself
    chosen, why = ("sparse", "") if pays else ("dense", "slower sparse, or hardly faster")
    for layer, number in steps.items():
        tried.note(layer, whole if is_whole else _of_step(programs[best], number, len(x)), chosen, why)
    return programs[best] if pays else None


def _of_step(program: SparseProgram, number: int, samples: int) -> dict[str, float]:
    """The seconds of one step with weights, among others and dense by itself."""
    step, shapes = program.program.steps[number], program.program.shapes
    assert step.kept is not None
    assert step.bias is not None
    source, (rows, columns) = shapes[step.source], step.kept.kernel
    weight, bias = torch.from_numpy(step.kept.dense(source.channels)), torch.from_numpy(step.bias)
    x = torch.randn(samples, shapes[0].size)
    out = torch.empty(samples, shapes[program.program.last].size)
    if (source.height, source.width) == (rows, columns) and not step.padding:
        features = torch.randn(samples, source.size)
        calls: dict[str, Callable[[], object]] = {"dense": partial(F.linear, features, weight.flatten(1), bias)}
    else:
        layer = nn.Conv2d(source.channels, len(bias), (rows, columns), step.stride, step.padding)
        layer.weight.data, layer.bias.data = weight, bias  # ty: ignore[invalid-assignment]
        calls = in_both_layouts(layer, torch.randn(samples, source.channels, source.height, source.width))
    seconds = interleaved(calls | {"sparse": lambda: program.run(x, out, number, number + 1)})
    return {"dense": min(value for how, value in seconds.items() if how != "sparse"), "sparse": seconds["sparse"]}


def in_both_layouts(dense: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    """Calls of a module, in the second layout that PyTorch has for images too."""
    calls: dict[str, Callable[[], object]] = {"dense": partial(dense, x)}
    if x.ndim == 4:
        last = copy.deepcopy(dense).to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
        calls["channels last"] = partial(last, x.to(memory_format=torch.channels_last))
    return calls


def agree(found: Tensor, expected: Tensor) -> bool:
    """Whether outputs are those of the masked network."""
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return found.shape == expected.shape and bool(((found - expected).abs() <= TOLERANCE * max(scale, 1e-30)).all())
