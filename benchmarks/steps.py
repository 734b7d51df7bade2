"""A masked training step against a dense one and against torch's own pruning; bf16 against float32."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import tombola as tb
from benchmarks.measure import Figure, Work, interleaved
from tombola import zoo
from tombola.tickets.torch_private import cpu_has_bf16

DENSITY = 0.1


class Masked(nn.Module):
    """A mask as a parametrization of a weight."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer, bf16: bool) -> Work:
    inputs, targets = batch

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return work


def variant(kind: str, name: str, shape: tuple[int, ...], optimizer: str, *, bf16: bool = False) -> Work:
    """A training step of a network that is dense or masked in one of three ways."""
    model = zoo.model(name, shape, 10)()
    batch = torch.randn(128, *shape), torch.randint(0, 10, (128,))
    if name.startswith("resnet"):
        model = model.to(memory_format=torch.channels_last)
        batch = batch[0].to(memory_format=torch.channels_last), batch[1]
    mask = tb.select(tb.scores.magnitude(model), DENSITY)
    for parameter in mask if kind in ("torch prune", "torch parametrize") else ():
        module = model.get_submodule(parameter.rpartition(".")[0])
        if kind == "torch prune":
            prune.custom_from_mask(module, "weight", mask[parameter])
        else:
            parametrize.register_parametrization(module, "weight", Masked(mask[parameter]))
    stepper = tb.Recipe(optimizer=optimizer, lr=0.01).make_optimizer(model.parameters())
    if kind == "masked":
        tb.attach(mask, model, stepper)
    return step(model, batch, stepper, bf16)


KINDS = ("dense", "masked", "torch prune", "torch parametrize")


def figures() -> Iterator[Figure]:
    for name, shape, optimizer, bar, repeats in (
        ("resnet20", (3, 32, 32), "sgd", 1.03, 12),
        ("lenet-300-100", (1, 28, 28), "sgd", 1.08, 400),
        ("lenet-300-100", (1, 28, 28), "adam", 1.08, 400),
    ):
        times = interleaved({kind: variant(kind, name, shape, optimizer) for kind in KINDS}, repeats)
        setup = f"{name}, batch 128, {optimizer}"
        note = f"dense {1e3 * times.seconds['dense']:.2f} ms"
        yield times.figure(f"masked step ÷ dense step ({setup})", "masked", "dense", bar, note)
        for rival in KINDS[2:]:
            yield times.figure(f"masked step ÷ {rival} ({setup})", "masked", rival, 1.0)
    if not cpu_has_bf16():
        return
    both = {kind: variant("dense", "resnet20", (3, 32, 32), "sgd", bf16=kind == "bf16") for kind in ("bf16", "float32")}
    times = interleaved(both, 12)
    note = f"float32 {1e3 * times.seconds['float32']:.0f} ms"
    yield times.figure("bf16 step ÷ float32 step (resnet20)", "bf16", "float32", 0.65, note)
