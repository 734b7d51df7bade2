"""The loop over a chunk of networks that train at once; each row and cost is as `training.loop` would give it alone."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from tombola.scores import batch_size
from tombola.training.batches import move
from tombola.training.checkpoint import Checkpoint
from tombola.training.cost import Cost, SampleFlops
from tombola.training.ensemble.feed import Feed
from tombola.training.ensemble.optimizer import Optimizer, Rates
from tombola.training.ensemble.stacked_network import Stacked
from tombola.training.loop import Fit
from tombola.training.memory import peak_memory
from tombola.training.progress import Bars
from tombola.training.recipe import Recipe
from tombola.training.task import Split, Task


@dataclass
class Stack:
    """A chunk of networks, their values in one buffer and by name, and how they are trained from step `begin` on."""

    task: Task
    recipes: Sequence[Recipe]
    network: Stacked
    values: Tensor
    named: Mapping[str, Tensor]
    optimizer: Optimizer
    rates: Rates
    feed: Feed
    begin: int

    @property
    def members(self) -> int:
        return len(self.recipes)

    @property
    def device(self) -> torch.device:
        return self.values.device

    def tensors(self) -> dict[str, Any]:
        """All that training changes."""
        return {"values": self.values, "states": self.optimizer.states, "buffers": self.network.buffers}

    def values_of(self, member: int) -> dict[str, Tensor]:
        """One member's parameters and buffers."""
        return {name: tensor[member] for name, tensor in {**self.named, **self.network.buffers}.items()}

    def put(self, saved: dict[str, Any]) -> None:
        self.values.copy_(saved["values"])
        for own, state in zip(self.optimizer.states, saved["states"], strict=True):
            own.copy_(state)
        for name, buffer in self.network.buffers.items():
            buffer.copy_(saved["buffers"][name])


@dataclass(frozen=True)
class PerSample:
    """What one member takes: FLOPs of a sample, bytes of a step."""

    flops: SampleFlops
    step_memory: int


@dataclass
class Ledger:
    """What the members came to so far: the next step, each one's history, where it diverged, and the cost of one."""

    step: int
    histories: list[list[dict[str, float]]]
    diverged: list[str]
    cost: Cost


@torch.no_grad()
def fit_together(
    stack: Stack, takes: PerSample, checkpoint: Checkpoint | None, bars: Bars, name: str
) -> tuple[list[Fit], list[str]]:
    """Train all of them for their recipe's epochs; what each came to, and where it diverged."""
    epochs, members, steps = stack.recipes[0].epochs, stack.members, stack.feed.steps
    ledger = Ledger(stack.begin, [[] for _ in range(members)], [""] * members, Cost())
    if checkpoint is not None and (saved := checkpoint.load()) is not None:
        stack.put(saved)
        ledger = Ledger(**(saved["ledger"] | {"cost": Cost(**saved["ledger"]["cost"])}))
    started = time.perf_counter()
    with bars.track(name, epochs, ledger.step // steps) as tick:
        for epoch in range(ledger.step // steps, epochs):
            losses, seen = [], 0
            for inputs, targets in stack.feed.epoch(epoch, ledger.step - epoch * steps):
                losses.append(stack.network.gradients(inputs, targets))
                stack.optimizer.step(stack.rates.at(ledger.step), ledger.step - stack.begin + 1)
                ledger.step += 1
                seen += targets.shape[1]
            metrics, validation_losses, evaluated = evaluate_together(stack, "validation")
            now = time.perf_counter()
            ledger.cost += Cost(
                samples_forward=seen + evaluated,
                samples_backward=seen,
                flops=round(seen * takes.flops.training + evaluated * takes.flops.forward),
                seconds=(now - started) / members,
                peak_memory=peak_memory(stack.device),
                dense_epochs=seen / stack.feed.samples,
                step_memory=takes.step_memory,
            )
            started = now
            mean = _note(ledger, stack, torch.stack(losses).float().cpu(), metrics, validation_losses, evaluated > 0)
            tick(f"loss {mean:.3f}")
            if checkpoint is not None and checkpoint.due() and epoch + 1 < epochs:
                checkpoint.save(stack.tensors() | {"ledger": asdict(ledger)})
    return [Fit(tuple(history), ledger.cost, members) for history in ledger.histories], ledger.diverged


def _note(
    ledger: Ledger, stack: Stack, losses: Tensor, metrics: list[float], validation_losses: list[float], evaluated: bool
) -> float:
    """Add an epoch's row to each history, unless that network diverged; losses: (steps, members). Their mean."""
    means, lasting = losses.mean(0).tolist(), losses.isfinite().all(0).tolist()
    for at, recipe in enumerate(stack.recipes):
        if not lasting[at] and not ledger.diverged[at]:
            ledger.diverged[at] = _words(losses[:, at], ledger.step - len(losses))
        if not ledger.diverged[at]:
            lr = recipe.lr_at(ledger.step - 1, stack.feed.steps)
            row = {"epoch": ledger.step // stack.feed.steps, "lr": lr, "train_loss": means[at]}
            if evaluated:
                row |= {"validation_metric": metrics[at], "validation_loss": validation_losses[at]}
            ledger.histories[at].append(row | {"seconds": ledger.cost.seconds})
    return sum(means) / len(means)


@torch.no_grad()
def evaluate_together(stack: Stack, split: Split) -> tuple[list[float], list[float], int]:
    """Each member's mean metric and mean loss on a split, and its number of samples."""
    metric = loss = torch.zeros(stack.members, device=stack.device)
    count = 0
    for batch in stack.task.batches(split, 0, 0):
        inputs, targets = move(batch, stack.device)
        outputs, size = stack.network.outputs(inputs), batch_size(batch)
        loss = loss + _of_each(stack.task.loss, outputs, targets) * size
        metric = metric + _of_each(stack.task.metric, outputs, targets) * size
        count += size
    return (metric / max(count, 1)).tolist(), (loss / max(count, 1)).tolist(), count


def _of_each(measure: Any, outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss or metric of each member's outputs, at once where vmap can."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="There is a performance drop")
            return vmap(measure, in_dims=(0, None))(outputs, targets).float()
    except (RuntimeError, UserWarning):
        return torch.stack([torch.as_tensor(measure(own, targets), device=outputs.device) for own in outputs]).float()


def _words(losses: Tensor, first: int) -> str:
    at = int((~losses.isfinite()).nonzero()[0])
    return f"the loss became {float(losses[at])} at step {first + at + 1} of its training; lower the learning rate"
