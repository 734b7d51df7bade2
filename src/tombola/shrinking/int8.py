"""Weights and activations in eight bits, by ONNX Runtime's own quantisation of a file that was exported."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from tombola.errors import TombolaError
from tombola.files import content_of, write_atomically
from tombola.nested import samples_in
from tombola.scores import Inputs
from tombola.shrinking.export import quiet
from tombola.shrinking.onnx_network import OnnxNetwork

Int8 = Literal["dynamic", "static"]
"""dynamic: weights are stored in eight bits, and each call measures the range of the activations; static: activations
have the range that they have on calibration data."""

SAMPLES = 256
"""How many samples calibrate a static quantisation at most."""
OUTLIERS = frozenset(("Softmax", "LayerNormalization"))
"""Operations of transformers. Their masks of -1e38 and their few large activations leave no step of eight bits for the
rest of a range."""
PRODUCTS = ("MatMul", "Gemm", "Conv", "Gather")
"""What is worth its eight bits where activations have such outliers, embeddings too; sums and norms stay in float."""


def to_int8(path: str | Path, target: str | Path, kind: Int8 = "static", calibration: Iterable[Inputs] = ()) -> None:
    """Write an ONNX file with eight bits a weight. Needs the extra `export`.

    Args:
        path: of the file that `to_onnx` wrote.
        target: of the file to write.
        kind: `dynamic` or `static`.
        calibration: for `static`, batches of inputs from the training or validation split; 256 samples are taken.

    Raises:
        TombolaError: the extra is missing, there are no calibration data, or the runtime cannot quantise the network.

    Examples:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> from tombola.shrinking import to_onnx
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     whole, small = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        ...     _ = to_onnx(nn.Linear(300, 200), torch.randn(4, 300), whole)
        ...     to_int8(whole, small, "static", [torch.randn(16, 300)])
        ...     small.stat().st_size < whole.stat().st_size / 3
        True
    """
    if kind not in get_args(Int8):
        raise TombolaError(f"there is no quantisation '{kind}'; give dynamic or static")
    try:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise TombolaError(f"{error.name} is not installed; pip install 'tombola[export]'") from error
    own: dict[str, Any] = {"per_channel": True, "reduce_range": not _multiplies_eight_bits()}
    own["weight_type"] = quantization.QuantType.QInt8
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(), quiet(""):
        warnings.simplefilter("ignore")
        ready, made = Path(place, "ready.onnx"), Path(place, "int8.onnx")
        ready.write_bytes(content_of(path))
        try:
            quant_pre_process(ready, ready, skip_symbolic_shape=True)
            model = onnx.load(ready)
            del model.graph.value_info[:]  # the quantiser transposes weights, and would find other shapes there
            if kind == "dynamic":
                quantization.quantize_dynamic(model, made, **own)
            else:
                reader = _reader(quantization, OnnxNetwork(path), calibration)
                own |= {"activation_type": quantization.QuantType.QUInt8} | _in_float(model)
                quantization.quantize_static(model, made, reader, **own)
            content = content_of(made)
        except TombolaError:
            raise
        except Exception as error:  # the quantiser raises many types
            raise TombolaError(f"ONNX Runtime cannot quantise {path}: {_first_line(error)}") from error
    write_atomically(Path(target), content)


def _in_float(model: Any) -> dict[str, Any]:
    """The quantiser's arguments on what keeps float activations in a static quantisation."""
    if OUTLIERS.isdisjoint(node.op_type for node in model.graph.node):
        return {}
    options = {"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]}
    return {"op_types_to_quantize": list(PRODUCTS), "extra_options": options}


def _reader(quantization: Any, network: OnnxNetwork, calibration: Iterable[Inputs]) -> Any:
    feeds = _feeds(network, calibration)
    first = next(feeds, None)
    if first is None:
        raise TombolaError("a static quantisation needs calibration data; give batches of inputs")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.waiting = [first]

        def get_next(self) -> Any:
            return self.waiting.pop() if self.waiting else next(feeds, None)

    return Reader()


def _feeds(network: OnnxNetwork, calibration: Iterable[Inputs]) -> Iterator[dict[str, Any]]:
    samples = 0
    for inputs in calibration:
        args, kwargs = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
        yield network.feed(args, kwargs)
        samples += samples_in(inputs) or 1
        if samples >= SAMPLES:
            return


def _multiplies_eight_bits() -> bool:
    """Whether the processor adds products of eight bits in 32; else sums of two in 16 overflow, and weights get 7."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(f" {own}" in flags for own in ("avx512_vnni", "avx_vnni", "asimddp", "i8mm"))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
