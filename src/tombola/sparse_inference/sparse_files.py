"""A sparse network in one file: kept weights, and the steps that use them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.files import content_of, read_as
from tombola.sparse_inference.execution import SparseProgram
from tombola.sparse_inference.program import TILES, Kept, Kind, Program, Shape, Step
from tombola.sparse_inference.program_check import check_program
from tombola.tickets import parts_of, write_file

KIND = "tombola-sparse"
ARRAYS = ("starts", "places", "values", "factors", "channels", "bias")


@dataclass(frozen=True)
class _SavedStep:
    kind: Kind
    source: int
    target: int
    added: int | None
    relu: bool
    stride: int
    padding: int
    window: tuple[int, int]
    kernel: tuple[int, int]
    layer: str


@dataclass(frozen=True)
class _Saved:
    shapes: tuple[tuple[int, int, int], ...]
    steps: tuple[_SavedStep, ...]
    last: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    tile: int


def save_sparse(network: nn.Module, path: str | Path) -> None:
    """Write a sparse network as one safetensors file.

    Args:
        network: what `sparse` returned, if all of it runs sparse.
        path: of the file.

    Raises:
        TombolaError: a part of the network is no sparse program, so that its own class is needed.
    """
    if not isinstance(network, SparseProgram):
        raise TombolaError(
            f"only a network that runs sparse as a whole can be written, and this is a {type(network).__name__}; save "
            "the masked network's weights and the ticket instead, and call sparse after loading them"
        )
    program, tensors = network.program, {}
    for number, step in enumerate(program.steps):
        kept = () if step.kept is None else (step.kept.starts, step.kept.places, step.kept.values)
        arrays = (*(kept or (None, None, None)), step.factors, step.channels, step.bias)
        for name, array in zip(ARRAYS, arrays, strict=True):
            if array is not None:
                tensors[f"{number}.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
    description = {
        "shapes": [(shape.channels, shape.height, shape.width) for shape in program.shapes],
        "steps": [_described(step) for step in program.steps],
        "last": program.last,
        "inputs": network.inputs,
        "outputs": network.outputs,
        "tile": network.tile,
    }
    write_file(Path(path), description, tensors, KIND)


def load_sparse(path: str | Path) -> SparseProgram:
    """Read a sparse network. No class of yours is needed.

    Args:
        path: of a file that `save_sparse`, or `tombola shrink --to sparse`, wrote.

    Returns:
        The network, for inference.

    Raises:
        TombolaError: the file is missing or altered, or its numbers do not fit together.
    """
    try:
        content, tensors = parts_of(content_of(path), KIND, "sparse network")
        saved = read_as(_Saved, content)
        steps = tuple(_step(number, step, tensors) for number, step in enumerate(saved.steps))
        program = Program(tuple(Shape(*shape) for shape in saved.shapes), steps, saved.last)
        check_program(program)
        if saved.tile not in TILES or any(
            np.prod(shape, dtype=object) != size
            for shape, size in (
                (saved.inputs, program.shapes[0].size),
                (saved.outputs, program.shapes[saved.last].size),
            )
        ):
            raise ValueError("its samples have another size")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        said = str(error) or type(error).__name__
        raise TombolaError(f"cannot read {path}: {said}; make it again with tombola shrink --to sparse") from error
    return SparseProgram(program, saved.inputs, saved.outputs, saved.tile).eval()


def _described(step: Step) -> dict[str, object]:
    names = ("kind", "source", "target", "added", "relu", "stride", "padding", "window", "layer")
    return {name: getattr(step, name) for name in names} | {"kernel": step.kept.kernel if step.kept else (1, 1)}


def _step(number: int, saved: _SavedStep, tensors: dict[str, Tensor]) -> Step:
    found = {name: tensors[f"{number}.{name}"].numpy() for name in ARRAYS if f"{number}.{name}" in tensors}
    own = {name: getattr(saved, name) for name in ("kind", "source", "target", "added", "relu", "stride", "padding")}
    kept = Kept(found["starts"], found["places"], found["values"], saved.kernel) if saved.kind == "convolve" else None
    rest = {name: found.get(name) for name in ("factors", "channels", "bias")}
    return Step(**own, window=saved.window, kept=kept, layer=saved.layer, **rest)
