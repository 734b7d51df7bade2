"""What masks, scores and searches cost on a GPU: `python -m benchmarks.gpu`. Without one it says so."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

import tombola as tb
from benchmarks.measure import Figure, Work, interleaved
from tombola import zoo
from tombola.testing import toy_network, toy_task

DENSITY = 0.1
NETWORKS = {"resnet20": (3, 32, 32), "lenet-300-100": (1, 28, 28)}


def main() -> int:
    console = Console(width=120)
    if not torch.cuda.is_available():
        console.print("There is no GPU here, so nothing is measured.")
        return 0
    device = torch.device("cuda")
    table = Table("figure", "ratio", "spread", "measured", title=torch.cuda.get_device_name(device))
    for figure in figures(device):
        table.add_row(figure.what, f"{figure.ratio:.3g}", f"{figure.spread:.0%}", figure.note)
    console.print(table)
    return 0


def figures(device: torch.device, repeats: int = 100) -> Iterator[Figure]:
    """The ratios of a device.

    Args:
        device: where networks are.
        repeats: how often each is timed; a search, of which each takes seconds, a twentieth of that.
    """
    for name, shape in NETWORKS.items():
        for optimizer in ("sgd", "adam"):
            steps = {
                kind: step(name, shape, optimizer, device, masked=kind == "masked") for kind in ("masked", "dense")
            }
            times = interleaved(steps, repeats, warm=max(2, repeats // 10))
            note = f"dense {1e3 * times.seconds['dense']:.3g} ms"
            yield times.figure(
                f"masked step ÷ dense step ({name}, batch 128, {optimizer})", "masked", "dense", None, note
            )
        scored = {"synflow": score(name, shape, device), "step": step(name, shape, "sgd", device, masked=False)}
        times = interleaved(scored, repeats)
        note = f"SynFlow {1e3 * times.seconds['synflow']:.3g} ms"
        yield times.figure(f"SynFlow, once ÷ dense step ({name})", "synflow", "step", None, note)
    searches = {kind: search(kind, device) for kind in ("imp", "snip", "gem-miner", "early-bird")}
    for kind, work in searches.items():
        both = {"there": work, "cpu": search(kind, torch.device("cpu"))}
        times = interleaved(both, max(2, repeats // 20), warm=1)
        note = f"CPU {times.seconds['cpu']:.2g} s"
        yield times.figure(f"a search there ÷ on the CPU ({kind}, toy task)", "there", "cpu", None, note)


def step(name: str, shape: tuple[int, ...], optimizer: str, device: torch.device, *, masked: bool) -> Work:
    """A training step, dense or masked; it ends when the device has done it."""
    model = zoo.model(name, shape, 10)().to(device)
    inputs, targets = torch.randn(128, *shape).to(device), torch.randint(0, 10, (128,)).to(device)
    stepper = tb.Recipe(optimizer=optimizer, lr=0.01).make_optimizer(model.parameters())
    if masked:
        tb.attach(tb.select(tb.scores.magnitude(model), DENSITY), model, stepper)

    def work() -> None:
        stepper.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        stepper.step()
        torch.accelerator.synchronize(device)

    return work


def score(name: str, shape: tuple[int, ...], device: torch.device) -> Work:
    model, batch = zoo.model(name, shape, 10)().to(device), (torch.randn(128, *shape), torch.zeros(128))

    def work() -> None:
        tb.scores.synflow(model, [batch])
        torch.accelerator.synchronize(device)

    return work


def search(kind: str, device: torch.device) -> Work:
    task = toy_task(toy_network, epochs=2)
    return lambda: tb.find(task, tb.method(kind, density=0.3), device=device, progress=False)


if __name__ == "__main__":
    sys.exit(main())
