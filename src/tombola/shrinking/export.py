"""Exports a network as an ONNX file and checks its outputs against PyTorch's."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.files import write_atomically
from tombola.tickets import check_whole

TOLERANCE = 1e-4


@contextmanager
def _quiet(name: str) -> Generator[None]:
    """Inside, a library logs errors only: its notes about an export do not concern the user."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@torch.no_grad()
def to_onnx(model: nn.Module, example: Tensor, path: str | Path) -> float:
    """Write a network, in evaluation mode and for any batch size, as an ONNX file. Needs the extra `export`.

    Args:
        model: the network, which is not changed.
        example: a batch of inputs, on which ONNX Runtime and PyTorch are compared.
        path: the file to write.

    Returns:
        The largest difference between the outputs of both, relative to the largest output; at most 1e-4.

    Raises:
        TombolaError: the extra is missing, the network cannot be exported, or the outputs differ. No file is written.

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
    try:
        # A copy, so that the caller's model keeps its mode and device.
        model, example = copy.deepcopy(model).cpu().eval(), example.cpu()
        with warnings.catch_warnings(), _quiet("torch.onnx"), _quiet("onnxscript"):
            warnings.simplefilter("ignore")
            batch = {0: torch.export.Dim("batch")}
            program = torch.onnx.export(model, (example,), dynamo=True, dynamic_shapes=(batch,), verbose=False)
        assert program is not None
        content = program.model_proto.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        outputs = session.run(None, {session.get_inputs()[0].name: example.numpy()})[0]
    except Exception as error:  # the exporter raises many types, and so may a user's forward
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise TombolaError(f"the network cannot be exported to ONNX: {why}") from error
    expected = model(example).numpy()
    gap = float(np.abs(outputs - expected).max() / np.abs(expected).max())
    if not gap <= TOLERANCE:  # also true for NaN
        raise TombolaError(
            f"ONNX Runtime's outputs differ from PyTorch's by {gap:.1e} of their size; no file is written"
        )
    write_atomically(Path(path), content)
    return gap
