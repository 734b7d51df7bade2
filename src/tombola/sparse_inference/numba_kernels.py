"""The same steps compiled by numba, where there is no C compiler: eight kept weights at a time."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from tombola.sparse_inference.program import Floats, Program, Step


def run(program: Program, x: Floats) -> Floats:
    """The program's result for samples.

    Args:
        program: what is run.
        x: (samples, inputs).

    Returns:
        (samples, outputs).
    """
    maps = {number: _blank(program, number, len(x)) for number in range(len(program.shapes))}
    first = program.shapes[0]
    _inside(program, maps, 0)[:] = x.T.reshape(first.channels, first.height, first.width, len(x))
    for step in program.steps:
        target = _inside(program, maps, step.target)
        target[:] = _made(program, maps, step)
        if step.added is not None:
            target += _inside(program, maps, step.added)
        if step.relu:
            np.maximum(target, 0, out=target)
    return np.ascontiguousarray(_inside(program, maps, program.last).reshape(-1, len(x)).T)


def _blank(program: Program, number: int, samples: int) -> Floats:
    shape, ring = program.shapes[number], program.rings[number]
    return np.zeros((shape.channels, shape.height + 2 * ring, shape.width + 2 * ring, samples), np.float32)


def _inside(program: Program, maps: dict[int, Floats], number: int) -> Floats:
    """A map without its ring of zeros."""
    shape, ring = program.shapes[number], program.rings[number]
    return maps[number][:, ring : ring + shape.height, ring : ring + shape.width]


def _made(program: Program, maps: dict[int, Floats], step: Step) -> Floats:
    source = _inside(program, maps, step.source)
    if step.kind == "convolve":
        return _convolved(program, maps[step.source], step)
    if step.kind == "scale":
        assert step.factors is not None
        assert step.bias is not None
        return source * step.factors[:, None, None, None] + step.bias[:, None, None, None]
    if step.kind in ("maximum", "mean"):
        edge = (step.padding, step.padding)
        padded = np.pad(source, ((0, 0), edge, edge, (0, 0)), constant_values=-np.inf)
        windows = sliding_window_view(padded, step.window, (1, 2))[:, :: step.stride, :: step.stride]
        return windows.max((-2, -1)) if step.kind == "maximum" else windows.mean((-2, -1))
    if step.channels is not None:
        found = source[step.channels, :: step.stride, :: step.stride].copy()
        found[step.channels < 0] = 0
        return found
    return source


def _convolved(program: Program, source: Floats, step: Step) -> Floats:
    assert step.kept is not None
    shape, skipped = program.shapes[step.target], program.rings[step.source] - step.padding
    out = np.empty((shape.channels, shape.height, shape.width, source.shape[-1]), np.float32)
    row = source.shape[2]
    begin, down = skipped * row + skipped, step.stride * row
    _compiled()(
        source.reshape(-1, source.shape[-1]),
        step.kept.starts,
        program.distances(step),
        step.kept.values,
        step.bias,
        begin,
        down,
        step.stride,
        out,
    )
    return out


@cache
def _compiled() -> Any:
    import numba

    @numba.njit(parallel=True, fastmath=True)
    def convolve(source, starts, distances, values, bias, begin, down, right, out):
        for channel in numba.prange(out.shape[0]):
            for y in range(out.shape[1]):
                for x in range(out.shape[2]):
                    at, sums = begin + y * down + x * right, out[channel, y, x]
                    sums[:] = bias[channel]
                    entry, end = starts[channel], starts[channel + 1]
                    while entry + 8 <= end:
                        v = values[entry : entry + 8]
                        d = distances[entry : entry + 8]
                        a, b, c, e = source[at + d[0]], source[at + d[1]], source[at + d[2]], source[at + d[3]]
                        f, g, h, i = source[at + d[4]], source[at + d[5]], source[at + d[6]], source[at + d[7]]
                        # Over the samples, which lie side by side, so that the compiler uses vector instructions.
                        for s in range(sums.shape[0]):
                            sums[s] += ((v[0] * a[s] + v[1] * b[s]) + (v[2] * c[s] + v[3] * e[s])) + (
                                (v[4] * f[s] + v[5] * g[s]) + (v[6] * h[s] + v[7] * i[s])
                            )
                        entry += 8
                    while entry < end:
                        value, one = values[entry], source[at + distances[entry]]
                        for s in range(sums.shape[0]):
                            sums[s] += value * one[s]
                        entry += 1

    def call(*arguments):
        threads = torch.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # ty: ignore[missing-attribute]
        convolve(*arguments)
        # Where both libraries share one OpenMP, numba's number of threads becomes PyTorch's as well.
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

    return call
