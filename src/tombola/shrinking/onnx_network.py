"""An ONNX file in the place of a network: it takes what the network takes, so that a task can measure it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.files import content_of
from tombola.nested import tensors_in


class OnnxNetwork(nn.Module):
    """A network that ONNX Runtime computes, on the CPU and with torch's number of threads. Needs the extra `export`.

    Args:
        path: of a file that `to_onnx` or `to_int8` wrote.

    Raises:
        TombolaError: the extra is missing, or the file cannot be read.

    Examples:
        >>> import tempfile
        >>> from tombola.shrinking import to_onnx
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = to_onnx(nn.Linear(3, 2), torch.ones(4, 3), f"{folder}/small.onnx")
        ...     OnnxNetwork(f"{folder}/small.onnx")(torch.ones(7, 3)).shape
        torch.Size([7, 2])
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            raise TombolaError("onnxruntime is not installed; pip install 'tombola[export]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content_of(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # it raises many types
            raise TombolaError(f"ONNX Runtime cannot read {path}: {error}; export the network again") from error
        self.inputs = tuple(entry.name for entry in self._session.get_inputs())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the file gives: a tensor, or a tuple of them.

        Args:
            args: the network's inputs, in its order.
            kwargs: more of them, by name.
        """
        outputs = [torch.from_numpy(own) for own in self._session.run(None, self.feed(args, kwargs))]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def feed(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """The inputs as the runtime takes them; arguments as of `forward`."""
        values = {name: own for name, own in kwargs.items() if name in self.inputs}
        rest = [name for name in self.inputs if name not in values]
        given = tensors_in(args) + tensors_in([own for name, own in kwargs.items() if name not in values])
        values |= dict(zip(rest, given, strict=False))
        return {name: _array(value) for name, value in values.items()}


def _array(value: Tensor) -> Any:
    return value.detach().cpu().contiguous().numpy()
