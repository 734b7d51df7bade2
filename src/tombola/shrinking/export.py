"""Exports a network as an ONNX file and checks its outputs against PyTorch's."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tombola.errors import TombolaError
from tombola.files import write_atomically
from tombola.nested import mapped, samples_in, tensors_in
from tombola.scores import Inputs, forward
from tombola.sparse_inference import with_zeros
from tombola.tickets import bare, check_whole, names_of

TOLERANCE = 1e-4


@contextmanager
def quiet(name: str) -> Generator[None]:
    """Inside, a library logs errors only: its notes about an export do not concern the user.

    Args:
        name: of its logger; empty for the one of all.
    """
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Flat(nn.Module):
    """A network that takes and gives plain tensors, as an ONNX file does, in place of nests of them."""

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        super().__init__()
        self.model = model
        self._example = example

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        left = iter(tensors)
        return tuple(tensors_in(forward(self.model, mapped(self._example, lambda _: next(left)))))


@torch.no_grad()
def to_onnx(model: nn.Module, example: Inputs, path: str | Path) -> float:
    """Write a network, in evaluation mode and for any batch size, as an ONNX file. Needs the extra `export`.

    A network that runs sparse is written with its zeros: no runtime for ONNX gains from them.

    The file's inputs and outputs are the tensors in those of the network, in their order; where these are dicts, they
    have the names of the keys.

    Args:
        model: the network, which is not changed.
        example: a batch of inputs, on which ONNX Runtime and PyTorch are compared: a tensor, or a tuple of arguments or
            a dict of keyword arguments, samples first.
        path: the file to write.

    Returns:
        The largest difference between the outputs of both, relative to the largest output; at most 1e-4.

    Raises:
        TombolaError: the extra is missing, the network cannot be exported, or for one batch size alone, or the outputs
            differ. No file is written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     to_onnx(nn.Linear(3, 2), torch.ones(4, 3), f"{folder}/small.onnx") < 1e-4
        True
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise TombolaError(f"{error.name} is not installed; pip install 'tombola[export]'") from error
    check_whole(model, "its export")
    # A copy, so that the caller's model keeps its mode and device.
    model, example = bare(copy.deepcopy(model)).cpu().eval(), mapped(example, Tensor.cpu)
    model = with_zeros(model)
    tensors, inputs = tensors_in(example), _names_of(example, "input")
    _refuse_packed(model)
    try:
        given = forward(model, example)
        expected = tensors_in(given)
        with warnings.catch_warnings(), quiet("torch.onnx"), quiet("onnxscript"):
            warnings.simplefilter("ignore")
            batch, samples = torch.export.Dim("batch"), samples_in(example)
            shapes = tuple({0: batch} if tensor.ndim and len(tensor) == samples else None for tensor in tensors)
            program = torch.onnx.export(
                _Flat(model, example),
                tuple(tensors),
                dynamo=True,
                dynamic_shapes=(shapes,),
                input_names=inputs,
                output_names=_names_of(given, "output"),
                verbose=False,
            )
        assert program is not None
        content = program.model_proto.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        taken = {entry.name for entry in session.get_inputs()}  # what the network does not use is no input of the file
        feed = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True) if name in taken}
        outputs = session.run(None, feed)
    except Exception as error:  # the exporter raises many types, and so may a user's forward
        raise TombolaError(f"the network cannot be exported to ONNX: {_reason(error)}") from error
    many = {name for name, tensor in zip(inputs, tensors, strict=True) if tensor.ndim and len(tensor) == samples}
    if any(entry.name in many and isinstance(entry.shape[0], int) for entry in session.get_inputs()):
        raise TombolaError(
            f"the file would take batches of {samples} samples alone: the network takes their number as a constant, as "
            "len(x) does; take x.shape[0] in its place, and an example of two samples or more"
        )
    gap = max(_gap(own.numpy(), np.asarray(output)) for own, output in zip(expected, outputs, strict=True))
    if not gap <= TOLERANCE:  # also true for NaN
        raise TombolaError(
            f"ONNX Runtime's outputs differ from PyTorch's by {gap:.1e} of their size; no file is written"
        )
    write_atomically(Path(path), content)
    return gap


def _refuse_packed(model: nn.Module) -> None:
    """Let recurrent layers refuse packed sequences, of which the exporter's own error says nothing."""

    def look(module: nn.Module, args: Any) -> None:
        if args and isinstance(args[0], PackedSequence):
            raise TombolaError(
                f"'{names_of(model)[module]}' is given packed sequences, which ONNX does not have; let the network pad "
                "them for its export"
            )

    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.register_forward_pre_hook(look)


def _names_of(values: Any, usual: str) -> list[str]:
    """A name for each tensor of a nest: its key, or the usual name with a number if there are several."""
    count = len(tensors_in(values))
    keys = (
        [str(key) for key, value in values.items() if isinstance(value, Tensor)] if isinstance(values, Mapping) else []
    )
    if len(keys) == count:
        return keys
    return [usual] if count == 1 else [f"{usual}_{number}" for number in range(count)]


def _gap(expected: np.ndarray, output: np.ndarray) -> float:
    if expected.shape != output.shape:
        return float("inf")
    return float(np.abs(output - expected).max(initial=0.0) / max(np.abs(expected).max(initial=0.0), 1e-30))


def _reason(error: BaseException) -> str:
    """The first line of what went wrong at the bottom of it: above that, exporters say how they report errors."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
