"""A network as an ONNX file, checked against PyTorch."""

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

TOLERANCE = 1e-4


@contextmanager
def _quiet(name: str) -> Generator[None]:
    """Without what a library logs that is no concern of who exports."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@torch.no_grad()
def to_onnx(model: nn.Module, example: Tensor, path: str | Path) -> float:
    """Write a network for any batch size as ONNX; the largest difference to PyTorch, relative to the largest output.

    Needs the extra `export`. Raises TombolaError if it is missing, if the network cannot be exported, or if ONNX
    Runtime gives other outputs; then no file is written.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise TombolaError(f"{error.name} is not installed; pip install 'tombola[export]'") from error
    try:
        model, example = copy.deepcopy(model).cpu().eval(), example.cpu()  # the caller's stay in their mode and place
        with warnings.catch_warnings(), _quiet("torch.onnx"), _quiet("onnxscript"):
            warnings.simplefilter("ignore")
            batch = {0: torch.export.Dim("batch")}
            program = torch.onnx.export(model, (example,), dynamo=True, dynamic_shapes=(batch,), verbose=False)
        assert program is not None
        content = program.model_proto.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        outputs = session.run(None, {session.get_inputs()[0].name: example.numpy()})[0]
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise TombolaError(f"the network cannot be exported to ONNX: {why}") from error
    expected = model(example).numpy()
    gap = float(np.abs(outputs - expected).max() / np.abs(expected).max())
    if not gap <= TOLERANCE:
        raise TombolaError(
            f"ONNX Runtime's outputs differ from PyTorch's by {gap:.1e} of their size; no file is written"
        )
    write_atomically(Path(path), content)
    return gap
