"""The loop over a chunk of networks that train at once. A network's rows and costs are as if it trained alone."""

from __future__ import annotations

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
from tombola.training.devices import now
from tombola.training.ensemble.feed import Feed
from tombola.training.ensemble.optimizer import Optimizer, Rates
from tombola.training.ensemble.stacked_network import Stacked
from tombola.training.loop import Fit
from tombola.training.memory import peak_memory
from tombola.training.metrics import SummedMetric
from tombola.training.progress import Bars
from tombola.training.recipe import Recipe
from tombola.training.task import Split, Task, metric_of


@dataclass
class Stack:
    """A chunk of networks and how they train.

    Args:
        task: gives loss, metric and the batches for evaluation.
        recipes: one a member; they differ in the learning rate alone.
        network: computes outputs and gradients of all members.
        values: all parameters in one flat buffer.
        named: views of `values` by parameter name, (members, *shape).
        optimizer: moves the values.
        rates: learning rates of the members.
        feed: gives the batches to train on.
        begin: the step where training starts, over the recipe's whole schedule.
    """

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
        """All that training changes, to be saved."""
        return {"values": self.values, "states": self.optimizer.states, "buffers": self.network.buffers}

    def values_of(self, member: int) -> dict[str, Tensor]:
        """One member's parameters and buffers."""
        return {name: tensor[member] for name, tensor in {**self.named, **self.network.buffers}.items()}

    def put(self, saved: dict[str, Any]) -> None:
        """Put saved `tensors` back, in place: views of these buffers are in use elsewhere."""
        self.values.copy_(saved["values"])
        for state, saved_state in zip(self.optimizer.states, saved["states"], strict=True):
            state.copy_(saved_state)
        for name, buffer in self.network.buffers.items():
            buffer.copy_(saved["buffers"][name])


@dataclass(frozen=True)
class PerSample:
    """What one member's training takes.

    Args:
        flops: those of a sample.
        step_memory: bytes of a step.
    """

    flops: SampleFlops
    step_memory: int


@dataclass
class Ledger:
    """How far the members are.

    Args:
        step: the next one.
        histories: each member's rows.
        diverged: each member's sentence on where its loss stopped being finite; empty where it did not.
        cost: of one member.
    """

    step: int
    histories: list[list[dict[str, float]]]
    diverged: list[str]
    cost: Cost


@torch.no_grad()
def fit_together(
    stack: Stack, takes: PerSample, checkpoint: Checkpoint | None, bars: Bars, name: str
) -> tuple[list[Fit], list[str]]:
    """Train all members of a chunk for their recipe's epochs.

    Args:
        stack: the members.
        takes: the FLOPs and memory of one member.
        checkpoint: where the state is kept now and then, and from which a killed training goes on.
        bars: show the progress.
        name: of the training, beside its bar.

    Returns:
        Each member's history and cost, and each member's sentence on where it diverged.
    """
    epochs, members, steps = stack.recipes[0].epochs, stack.members, stack.feed.steps
    ledger = Ledger(stack.begin, [[] for _ in range(members)], [""] * members, Cost())
    if checkpoint is not None and (saved := checkpoint.load()) is not None:
        with checkpoint.fitting():
            stack.put(saved)
            ledger = Ledger(**(saved["ledger"] | {"cost": Cost(**saved["ledger"]["cost"])}))
    started = now(stack.device)
    with bars.track(name, epochs, ledger.step // steps) as tick:
        for epoch in range(ledger.step // steps, epochs):
            losses, samples = [], 0
            for inputs, targets in stack.feed.epoch(epoch, ledger.step - epoch * steps):
                losses.append(stack.network.gradients(inputs, targets))
                stack.optimizer.step(stack.rates.at(ledger.step), ledger.step - stack.begin + 1)
                ledger.step += 1
                samples += targets.shape[1]
            metrics, validation_losses, evaluated = evaluate_together(stack, "validation")
            ended = now(stack.device)
            ledger.cost += Cost(
                samples_forward=samples + evaluated,
                samples_backward=samples,
                flops=round(samples * takes.flops.training + evaluated * takes.flops.forward),
                seconds=(ended - started) / members,  # each member's even share
                peak_memory=peak_memory(stack.device),
                dense_epochs=samples / stack.feed.samples,
                step_memory=takes.step_memory,
            )
            started = ended
            mean = _add_rows(
                ledger, stack, torch.stack(losses).float().cpu(), metrics, validation_losses, evaluated > 0
            )
            tick(f"loss {mean:.3f}")
            if checkpoint is not None and checkpoint.due() and epoch + 1 < epochs:
                checkpoint.save(stack.tensors() | {"ledger": asdict(ledger)})
    return [Fit(tuple(history), ledger.cost, members) for history in ledger.histories], ledger.diverged


def _add_rows(
    ledger: Ledger, stack: Stack, losses: Tensor, metrics: list[float], validation_losses: list[float], evaluated: bool
) -> float:
    """Add an epoch's row to the history of each member that has not diverged; the mean loss of all.

    losses: (steps, members).
    """
    means, finite = losses.mean(0).tolist(), losses.isfinite().all(0).tolist()
    for at, recipe in enumerate(stack.recipes):
        if not finite[at] and not ledger.diverged[at]:
            ledger.diverged[at] = _divergence(losses[:, at], ledger.step - len(losses))
        if not ledger.diverged[at]:
            lr = recipe.lr_at(ledger.step - 1, stack.feed.steps)
            row = {"epoch": ledger.step // stack.feed.steps, "lr": lr, "train_loss": means[at]}
            if evaluated:
                row |= {"validation_metric": metrics[at], "validation_loss": validation_losses[at]}
            ledger.histories[at].append(row | {"seconds": ledger.cost.seconds})
    return sum(means) / len(means)


@torch.no_grad()
def evaluate_together(stack: Stack, split: Split) -> tuple[list[float], list[float], int]:
    """Measure all members on a split, in evaluation mode.

    Returns:
        Each member's mean metric, each member's mean loss, and the number of samples.
    """
    metric = metric_of(stack.task)
    summed = metric if isinstance(metric, SummedMetric) else None
    loss = sums = torch.zeros(stack.members, device=stack.device)
    count = 0
    for batch in stack.task.batches(split, 0, 0):
        inputs, targets = move(batch, stack.device)
        outputs, size = stack.network.outputs(inputs), batch_size(batch)
        loss = loss + _for_members(stack.task.loss, outputs, targets).float() * size
        if summed is None:
            sums = sums + _for_members(metric, outputs, targets).float() * size
        else:
            own = _for_members(summed.sums, outputs, targets)
            sums = sums + own if count else own
        count += size
    values = (sums / max(count, 1)).tolist() if summed is None or not count else [float(summed.of(m)) for m in sums]
    return values, (loss / max(count, 1)).tolist(), count


def _for_members(measure: Any, outputs: Tensor, targets: Tensor) -> Tensor:
    """A measure of each member's outputs, at once if vmap can do that without falling back to a slow loop."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="There is a performance drop")
            return vmap(measure, in_dims=(0, None))(outputs, targets)
    except (RuntimeError, UserWarning):
        return torch.stack([torch.as_tensor(measure(row, targets), device=outputs.device) for row in outputs])


def _divergence(losses: Tensor, first: int) -> str:
    """The sentence on one member's first loss that is not finite; first: the step of the first loss, from 0."""
    place = int((~losses.isfinite()).nonzero()[0])
    return (
        f"the loss became {float(losses[place])} at step {first + place + 1} of its training; lower the learning rate"
    )
