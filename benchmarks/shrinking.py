"""A shrunk network against the dense and the masked one, and the cost of watching for its ticket."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tombola as tb
from benchmarks.measure import Figure, Times, Work, interleaved
from benchmarks.scores import step
from tombola import zoo
from tombola.scores import suited
from tombola.structure import Wiring
from tombola.studies import TaskOptions, make_task
from tombola.tickets import tensors_of

SHAPE = (3, 32, 32)
BARS = {"vgg11": 0.8, "resnet18": 0.8, "resnet20": 0.55}
REMOVED = {"vgg11": (0.3, 0.5, 0.7), "resnet18": (0.5,), "resnet20": (0.3, 0.5, 0.7)}
REPEATS = {"vgg11": 7, "resnet18": 3, "resnet20": 15}


def figures() -> Iterator[Figure]:
    for name, shares in REMOVED.items():
        for share in shares:
            yield from against_whole(name, share)
    for share in REMOVED["resnet20"]:
        yield from against_whole("resnet20", share, 8)
    yield watching()
    yield from to_a_trained_ticket()


def without(wiring: Wiring, share: float, multiple: int = 1) -> tb.Mask:
    """Remove a share of every layer's channels, the last ones; layers that add to one residual stream then agree.

    What stays is the nearest multiple of `multiple`, and not 0.
    """
    kept = {}
    for group in wiring.groups:
        if any(part.scored for part in group.slices):
            stays = multiple * max(1, round((1 - share) * group.size / multiple))
            kept[group.name] = torch.arange(group.size) < stays
    return tb.Mask.of(kept)


def training(model: nn.Module, batch: int) -> Work:
    model = model.to(memory_format=torch.channels_last).train()  # ty: ignore[no-matching-overload]
    x = torch.randn(batch, *SHAPE).to(memory_format=torch.channels_last)
    return step(model, (x, torch.randint(0, 10, (batch,))))


def inference(model: nn.Module, batch: int) -> Work:
    model = model.to(memory_format=torch.channels_last).eval()  # ty: ignore[no-matching-overload]
    x = torch.randn(batch, *SHAPE).to(memory_format=torch.channels_last)

    def work() -> None:
        with torch.inference_mode():
            model(x)

    return work


def flops(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *SHAPE))
    return counter.get_total_flops()


def against_whole(name: str, share: float, multiple: int = 1) -> Iterator[Figure]:
    """FLOPs saved ÷ time saved, so that a bar is an upper one."""
    whole, example = zoo.model(name, SHAPE, 10)(), torch.randn(4, *SHAPE)
    units = tb.structure.SeparateChannels().units(whole, lambda model: model(suited(example, model)))
    mask = units.expand(without(units.wiring, share, multiple), tensors_of(whole))
    removed = f"{share:.0%} of channels removed" + (f", widths multiples of {multiple}" if multiple > 1 else "")
    small = tb.shrink(whole, mask, example=example)
    saved = 1 - flops(small) / flops(whole)
    masked = zoo.model(name, SHAPE, 10)()
    tb.attach(mask, masked).detach()  # what is measured is zeros in dense tensors, without hooks
    for use, work, batch, bar in (
        ("training", training, 64, 1 / BARS[name]),
        ("inference", inference, 64, 1 / BARS[name]),
        ("inference", inference, 1, None),
    ):
        variants = {"whole": work(whole, batch), "masked": work(masked, batch), "small": work(small, batch)}
        times = interleaved(variants, REPEATS[name] if batch > 1 else 50)
        yield Figure(
            f"FLOPs saved ÷ time saved ({name}, {removed}, {use}, batch {batch})",
            saved / max(1 - times.ratio("small", "whole"), 0.01),
            bar,
            _note(times, saved),
            times.spread,
        )
    yield from in_onnx_runtime(name, removed, whole, small)


def _note(times: Times, saved: float) -> str:
    seconds = times.seconds
    return (
        f"{saved:.0%} of FLOPs; whole {1e3 * seconds['whole']:.3g} ms, masked {1e3 * seconds['masked']:.3g}, "
        f"small {1e3 * seconds['small']:.3g}"
    )


def in_onnx_runtime(name: str, removed: str, whole: nn.Module, small: nn.Module) -> Iterator[Figure]:
    """The same two networks in ONNX Runtime, if the extra `export` is installed."""
    try:
        import onnxruntime
    except ImportError:
        return
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, network in (("whole", whole), ("small", small)):
            path = Path(folder) / f"{kind}.onnx"
            tb.shrinking.to_onnx(network.to(memory_format=torch.contiguous_format), torch.randn(2, *SHAPE), path)  # ty: ignore[no-matching-overload]
            sessions[kind] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 64):
        x = {sessions["whole"].get_inputs()[0].name: torch.randn(batch, *SHAPE).numpy()}
        times = interleaved({kind: partial(session.run, None, x) for kind, session in sessions.items()}, 20)
        what = f"small ÷ whole in ONNX Runtime ({name}, {removed}, batch {batch})"
        yield times.figure(what, "small", "whole", None, f"whole {1e3 * times.seconds['whole']:.3g} ms")


def watching() -> Figure:
    """What a watch adds to an epoch of 100 steps: a call of its hook in each step, and one look at the masks."""
    model = zoo.model("resnet20", SHAPE, 10)()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    watch = tb.Worm(0.5, truncate="always").watch(model, optimizer)
    work = training(model, 128)
    work()
    hook = partial(watch._before_step, optimizer, (optimizer,), {})
    times = interleaved({"step": work, "hook": hook, "look": watch.epoch_end}, 9)
    step, hook, look = (times.seconds[name] for name in ("step", "hook", "look"))
    added = (100 * hook + look) / (100 * step)
    note = f"step {1e3 * step:.0f} ms, hook {1e6 * hook:.0f} µs, look {1e3 * look:.1f} ms"
    return Figure("watching for WORM ÷ an epoch of 100 steps (resnet20, batch 128)", added, 0.01, note, times.spread)


def to_a_trained_ticket() -> Iterator[Figure]:
    """Search and training of a ticket of half of the channels against dense training; one run on the standard bench."""
    recipe = tb.Recipe(epochs=16)
    task = make_task(TaskOptions(data="fashion-mnist-14", model="vgg11", width=0.25, recipe=recipe))
    dense = tb.train(task)
    for name in ("network-slimming", "early-bird", "worm"):
        ticket = tb.find(task, tb.method(name, density=0.5), progress=False)
        trained, search = tb.train(task, ticket), ticket.provenance.cost
        seconds = search["seconds"] + trained.cost.seconds
        epochs = recipe.epochs * (search["flops"] + trained.cost.flops) / dense.cost.flops
        note = (
            f"{seconds:.0f} s, {epochs:.1f} dense epochs, {trained.metric:.1%}; dense {dense.cost.seconds:.0f} s, "
            f"{recipe.epochs} epochs, {dense.metric:.1%}"
        )
        what = f"{name}, search and training ÷ dense training (vgg11, width 0.25, 16 epochs, half of the channels)"
        yield Figure(f"{what}, in seconds", seconds / dense.cost.seconds, None, note)
        yield Figure(f"{what}, in dense epochs", epochs / recipe.epochs, None, note)
