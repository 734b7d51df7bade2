"""Whether a program fits together: the kernels follow its numbers without a look, so that each is looked at before."""

from __future__ import annotations

import math

import numpy as np

from tombola.sparse_inference.program import TILES, Floats, Ints, Program, Shape, Step

MOST = 2**31 - 1
"""No distance between activations is larger: it is kept in 32 bits."""


def check_program(program: Program) -> None:
    """Look at all numbers of a program.

    Raises:
        ValueError: one does not fit, in words that name the step.
    """
    if len(program.shapes) != len(program.steps) + 1 or not 0 <= program.last <= len(program.steps):
        raise ValueError("it has not one map for each step and one for the input")
    for shape in program.shapes:
        if min(shape.channels, shape.height, shape.width) < 1 or shape.size > MOST // TILES[-1]:
            raise ValueError(f"it has a map of {shape.channels} × {shape.height} × {shape.width}")
    for number, step in enumerate(program.steps):
        try:
            _check(program, number, step)
        except ValueError as error:
            raise ValueError(f"step {number} ({step.kind}) {error}") from error
    if program.seats[1] > MOST // TILES[-1]:
        raise ValueError("its maps are larger than any that Tombola makes")


def _check(program: Program, number: int, step: Step) -> None:
    if step.target != number + 1 or not 0 <= step.source <= number:
        raise ValueError("reads or writes a map that is not its turn")
    source, target = program.shapes[step.source], program.shapes[step.target]
    if step.added is not None and (not 0 <= step.added <= number or program.shapes[step.added] != target):
        raise ValueError("adds a map of another shape")
    if step.stride < 1 or min(step.window) < 1 or not 0 <= step.padding <= MOST:
        raise ValueError("has no such stride, window or padding")
    if step.kind == "convolve":
        _check_weights(step, source, target)
    elif step.kind == "scale":
        _check_array(step.factors, target.channels)
        _check_array(step.bias, target.channels)
    elif step.kind == "pick":
        _check_channels(step.channels, source, target)
    expected = _made(step, source, target)
    if expected != target:
        raise ValueError(f"makes {expected}, and its map is {target}")


def _made(step: Step, source: Shape, target: Shape) -> Shape:
    """The shape that a step makes; channels of convolutions and picks are those of their arrays."""
    if step.kind in ("add", "scale"):
        return source
    if step.kind == "pick":
        return Shape(target.channels, *(-(-side // step.stride) for side in (source.height, source.width)))
    rows, columns = step.kept.kernel if step.kept is not None else step.window
    largest = max(rows, columns) if step.kind == "convolve" else min(rows, columns) // 2
    if step.padding > largest or (step.kind == "mean" and step.padding):
        raise ValueError("is padded by more than its window")
    sides = ((source.height, rows), (source.width, columns))
    height, width = ((side + 2 * step.padding - size) // step.stride + 1 for side, size in sides)
    return Shape(target.channels if step.kind == "convolve" else source.channels, height, width)


def _check_weights(step: Step, source: Shape, target: Shape) -> None:
    kept = step.kept
    if kept is None or min(kept.kernel) < 1:
        raise ValueError("has no kernel")
    starts, places = kept.starts, kept.places
    _check_array(kept.values, len(places))
    _check_array(step.bias, target.channels)
    if starts.dtype != np.int32 or places.dtype != np.int32 or starts.shape != (target.channels + 1,):
        raise ValueError("has weights in another form")
    if starts[0] != 0 or starts[-1] != len(places) or (np.diff(starts) < 0).any():
        raise ValueError("has channels whose weights overlap or are missing")
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < source.channels * math.prod(kept.kernel):
        raise ValueError("has weights outside its kernel")


def _check_channels(channels: Ints | None, source: Shape, target: Shape) -> None:
    if channels is None or channels.dtype != np.int32 or channels.shape != (target.channels,):
        raise ValueError("has not one input channel for each of its own")
    if not -1 <= int(channels.min()) <= int(channels.max()) < source.channels:
        raise ValueError("takes channels that are not there")


def _check_array(array: Floats | None, length: int) -> None:
    if array is None or array.dtype != np.float32 or array.shape != (length,):
        raise ValueError(f"has not {length} numbers in float32")
    if not np.isfinite(array).all():
        raise ValueError("has a number that is not finite")
