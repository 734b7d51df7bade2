"""Unstructured tickets that run sparse, against the fastest dense execution of PyTorch, ONNX Runtime and, where it is
installed, OpenVINO.

Tickets are of iterative magnitude pruning on Fashion-MNIST, short: what counts here is how uneven their layers are.
Variants run on the same threads and take turns.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tombola as tb
from benchmarks.measure import Figure, interleaved
from tombola import zoo
from tombola.shrinking import SparsityWarning, sparse
from tombola.training import train

BARS = {
    ("784-300-100-10", 0.95, 256): 1 / 5,
    ("784-768-768-10", 0.95, 256): 1 / 7,
    ("vgg11", 0.95, 64): 1 / 2.5,
    ("resnet20", 0.95, 64): 1 / 1.7,
    ("784-300-100-10", 0.9, 256): 1 / 3,
    ("784-768-768-10", 0.9, 256): 1 / 4,
    ("vgg11", 0.9, 64): 1 / 1.6,
    ("resnet20", 0.9, 64): 1 / 1.2,
}
"""Of the issue that asked for it, by network, sparsity and samples a call; elsewhere: never slower."""
PERCEPTRONS = {"784-300-100-10": (300, 100), "784-768-768-10": (768, 768)}
SPARSITIES = (0.9, 0.95, 0.98)
SAMPLES = {
    "784-300-100-10": (1, 16, 256),
    "784-768-768-10": (1, 16, 256),
    "vgg11": (1, 16, 64),
    "resnet20": (1, 16, 64),
}
TURNS = 100


def figures() -> Iterator[Figure]:
    for name, samples in SAMPLES.items():
        for sparsity in SPARSITIES:
            model, mask = ticket(name, sparsity)
            for threads in (1, 2):
                for batch in samples:
                    yield at(name, model, mask, sparsity, batch, threads)
    for name in ("vgg11", "resnet20"):
        yield from both(name)


@torch.no_grad()
def both(name: str, sparsity: float = 0.9, batch: int = 64) -> Iterator[Figure]:
    """A ticket that loses half of the channels and most of the weights that remain: end to end, beside either alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, weights = ticket(name, sparsity)
        x = torch.randn(batch, 3, 32, 32)
        units = tb.Channels().units(model, lambda own: own(x[:1].to(next(own.parameters()).device)))
        kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
        channels = units.expand(kept, dict(model.named_parameters()))
        left = tb.shrinking.preview(model, channels & weights, x[:1]).mask
        networks = {"dense": model, "channels": tb.shrink(copy.deepcopy(model), channels, example=x[:1])}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SparsityWarning)
            networks["weights"] = sparse(model, weights, x)
            small = tb.shrink(copy.deepcopy(model), channels & weights, example=x[:1])
            networks["both"] = sparse(small, left, x)
        calls = {how: partial(own, x) for how, own in networks.items()}
        times = interleaved(calls, TURNS, warm=5)
    finally:
        torch.set_num_threads(before)
    note = ", ".join(f"{how} {1000 * value:.3g} ms" for how, value in times.seconds.items())
    for rival in ("dense", "channels", "weights"):
        yield times.paired(
            f"channels and weights ÷ {rival} ({name}, {sparsity:.0%} of weights, batch {batch})",
            "both",
            rival,
            1.0,
            note,
        )


def perceptron(widths: Sequence[int]) -> nn.Module:
    """Linear layers on 784 features, with ReLUs between them."""
    sizes = (784, *widths)
    hidden = [layer for a, b in zip(sizes, widths, strict=False) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], 10))


@cache
def images() -> dict[str, tuple[Tensor, Tensor]]:
    """Fashion-MNIST."""
    return zoo.data("fashion-mnist")


def ticket(name: str, sparsity: float) -> tuple[nn.Module, tb.Mask]:
    """A trained network and the mask of its ticket, found in rounds of one epoch."""
    data = images()
    recipe = tb.Recipe(epochs=1)
    if name in PERCEPTRONS:
        task = tb.SupervisedTask(lambda: perceptron(PERCEPTRONS[name]), data, recipe=recipe)
    else:
        colours = {split: (_in_colour(x[:2000]), y[:2000]) for split, (x, y) in data.items()}
        task = tb.SupervisedTask(zoo.model(name, (3, 32, 32), 10), colours, recipe=recipe)
    found = tb.find(task, tb.Iterative(density=1 - sparsity, count=5), seed=0, device="cpu")
    return train(task, found, seed=0, device="cpu").model.eval(), found.mask


def _in_colour(images: Tensor) -> Tensor:
    """Images of 3 × 32 × 32, for which these networks were made."""
    return F.pad(images, (2, 2, 2, 2)).expand(-1, 3, -1, -1).contiguous()


@torch.no_grad()
def at(name: str, model: nn.Module, mask: tb.Mask, sparsity: float, batch: int, threads: int) -> Figure:
    """How a network runs sparse, beside what is fastest dense."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        shape = (784,) if name in PERCEPTRONS else (3, 32, 32)
        x = torch.randn(batch, *shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SparsityWarning)
            fast = sparse(model, mask, x)
        calls: dict[str, Callable[[], object]] = {"torch": lambda: model(x), "sparse": lambda: fast(x)}
        calls["ONNX Runtime"] = in_onnx_runtime(model, x, threads)
        if find_spec("openvino") is not None:
            calls["OpenVINO"] = in_openvino(model, x, threads)
        if x.ndim == 4:
            last, pixels = copy.deepcopy(model).to(memory_format=torch.channels_last), x.contiguous()  # ty: ignore[no-matching-overload]
            pixels = pixels.to(memory_format=torch.channels_last)
            calls["torch, channels last"] = lambda: last(pixels)
        times = interleaved(calls, TURNS, warm=5)
    finally:
        torch.set_num_threads(before)
    best = min((how for how in calls if how != "sparse"), key=lambda how: times.seconds[how])
    note = ", ".join(f"{how} {1000 * value:.3g} ms" for how, value in times.seconds.items())
    how = f"{sparsity:.0%} sparse, batch {batch}, {threads} thread{'s' * (threads > 1)}"
    what = f"sparse ÷ the fastest dense ({name}, {how})"
    return times.paired(what, "sparse", best, BARS.get((name, sparsity, batch), 1.05), note)


def in_onnx_runtime(model: nn.Module, x: Tensor, threads: int) -> Callable[[], object]:
    """A call of the network in ONNX Runtime."""
    import onnxruntime

    content = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    assert program is not None
    program.save(content)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, feed)


def in_openvino(model: nn.Module, x: Tensor, threads: int) -> Callable[[], object]:
    """A call of the network in OpenVINO, in float32."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    program = openvino.compile_model(openvino.convert_model(model, example_input=x), "CPU", settings)
    request, pixels = program.create_infer_request(), x.numpy()
    torch.testing.assert_close(torch.from_numpy(request.infer([pixels])[0]), model(x), rtol=1e-3, atol=1e-3)
    return lambda: request.infer([pixels], share_inputs=True)


def a_random_ticket(name: str, sparsity: float) -> tuple[nn.Module, tb.Mask]:
    """A network that nobody trained, with a random mask."""
    model = perceptron(PERCEPTRONS[name]) if name in PERCEPTRONS else zoo.model(name, (3, 32, 32), 10)()
    mask = tb.select(tb.scores.random(model), 1 - sparsity, scope="layerwise")
    tb.attach(mask, model).detach()
    return model.eval(), mask
