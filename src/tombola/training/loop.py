"""The one loop: every training, searches over scores included, goes through `fit`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence, Sized
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores import Batch, batch_size
from tombola.structure import in_mode
from tombola.tickets import Mask, Ticket, attach, device_of, put_values, tensors_of
from tombola.training.batches import move
from tombola.training.checkpoint import Checkpoint
from tombola.training.cost import Cost, SampleFlops, train_samples
from tombola.training.memory import peak_memory, step_memory
from tombola.training.observers import Observer, State
from tombola.training.progress import Bars
from tombola.training.randomness import own_randomness, seed_everything
from tombola.training.recipe import Recipe
from tombola.training.task import Split, Task, smoothed

WATCH_EVERY = 100


class Diverged(TombolaError):
    """The loss stopped being a finite number."""


@dataclass(frozen=True)
class Fit:
    """What a training came to: one history row an epoch, its cost, and how many networks trained at once."""

    history: tuple[dict[str, float], ...]
    cost: Cost
    together: int = 1

    @property
    def validation(self) -> float | None:
        """The metric on the validation split after the last epoch; None where there was no epoch or no such split."""
        return self.history[-1].get("validation_metric") if self.history else None


def fit(
    task: Task,
    model: nn.Module,
    recipe: Recipe,
    *,
    seed: int,
    attached: Mask | Ticket | None = None,
    observers: Sequence[Observer] = (),
    checkpoint: Checkpoint | None = None,
    bars: Bars | None = None,
    name: str = "training",
) -> Fit:
    """Train `model` in place by the recipe; data order and all randomness are functions of (seed, epoch).

    attached: a mask or ticket whose dead weights stay dead. With a checkpoint, a killed run goes on after its
    last whole epoch and ends with the same values. Raises Diverged, naming the step, if the loss is not finite.
    """
    device = device_of(model)
    steps_per_epoch = length_of(task.batches("train", seed, 0))
    begin = recipe.begin(steps_per_epoch)
    layout = recipe.wants_channels_last(model)
    if layout:
        model.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
    optimizer = recipe.make_optimizer(model.parameters())
    run = torch.compile(model) if recipe.compile else model
    loss = smoothed(task.loss, recipe.label_smoothing)
    with own_randomness(device, seed):
        first = next(iter(task.batches("train", seed, 0)))
        step_bytes = step_memory(task, model, first, recipe)
    cost, started = Cost(), time.perf_counter()

    with own_randomness(device, seed), attach(attached or Mask({}), model, optimizer if attached else None) as handle:
        state = State(model, optimizer, recipe, steps_per_epoch, begin, begin // steps_per_epoch, handle)
        if checkpoint is not None and (saved := checkpoint.load()) is not None:
            cost = _restore(saved, state, observers)
        flops = SampleFlops.measure(task, model, first)
        samples = train_samples(task.batches("train", seed, 0))
        with (bars or Bars()).track(name, recipe.epochs, state.epoch) as tick:
            while state.epoch < recipe.epochs:
                losses, seen = _epoch(task, run, loss, state, seed, observers, layout, name)
                row = {"epoch": state.epoch, "lr": recipe.lr_at(state.step - 1, steps_per_epoch)}
                row |= {"train_loss": float(losses.mean())}
                metric, validation_loss, evaluated = evaluate(task, model, "validation", recipe)
                row |= {"validation_metric": metric, "validation_loss": validation_loss} if evaluated else {}
                now = time.perf_counter()
                cost += Cost(
                    samples_forward=seen + evaluated,
                    samples_backward=seen,
                    flops=round(seen * flops.training + evaluated * flops.forward),
                    seconds=now - started,
                    peak_memory=peak_memory(device),
                    dense_epochs=seen / samples,
                    step_memory=step_bytes,
                )
                started = now
                state.history.append(row | {"seconds": cost.seconds})
                stop = any([observer.epoch_end(state) for observer in observers])
                tick(_words(state.history[-1]))
                if stop:
                    break
                if checkpoint is not None and checkpoint.due():
                    checkpoint.save(_saved(state, observers, cost))
    return Fit(tuple(state.history), cost)


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, split: Split, recipe: Recipe) -> tuple[float, float, int]:
    """Mean metric, mean loss and number of samples of a split, in the recipe's precision; modes are restored."""
    device = device_of(model)
    layout = recipe.wants_channels_last(model)
    metric = loss = torch.zeros((), device=device)
    count = 0
    with in_mode(model, "eval"):
        for batch in task.batches(split, 0, 0):
            inputs, targets = move(batch, device, layout)
            with autocast(recipe, device):
                outputs = task.forward(model, inputs)
                size = batch_size(batch)
                loss = loss + task.loss(outputs, targets).float() * size
                metric = metric + task.metric(outputs, targets) * size
            count += size
    return float(metric) / max(count, 1), float(loss) / max(count, 1), count


def _epoch(
    task: Task,
    run: Any,
    loss: Any,
    state: State,
    seed: int,
    observers: Sequence[Observer],
    layout: bool,
    name: str,
) -> tuple[Tensor, int]:
    """One pass (the rest of one, if training starts within it); each step's loss, and the samples seen."""
    recipe, optimizer, device = state.recipe, state.optimizer, device_of(state.model)
    seed_everything(seed, state.epoch)
    state.model.train()
    for observer in observers:
        observer.epoch_begin(state)
    losses: list[Tensor] = []
    seen, first = 0, state.step
    batches: Iterable[Batch] = task.batches("train", seed, state.epoch)
    for batch in islice(batches, state.step - state.epoch * state.steps_per_epoch, None):
        inputs, targets = move(batch, device, layout)
        with autocast(recipe, device):
            value = loss(task.forward(run, inputs), targets)
        optimizer.zero_grad()
        dense = any(observer.wants_dense_gradients(state) for observer in observers)
        with state.attached.dense_gradients() if dense else nullcontext():
            value.backward()
        for observer in observers:
            observer.before_step(state)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(state.step, state.steps_per_epoch)
        optimizer.step()
        state.step += 1
        for observer in observers:
            observer.after_step(state)
        losses.append(value.detach())
        seen += batch_size(batch)
        if len(losses) % WATCH_EVERY == 0:
            _check_finite(losses[-WATCH_EVERY:], state.step - WATCH_EVERY, name)
    _check_finite(
        losses[len(losses) // WATCH_EVERY * WATCH_EVERY :], first + len(losses) // WATCH_EVERY * WATCH_EVERY, name
    )
    state.epoch += 1
    return torch.stack(losses).float(), seen


def _check_finite(losses: list[Tensor], first: int, name: str) -> None:
    if not losses:
        return
    odd = (~torch.stack(losses).isfinite()).nonzero().flatten()
    if len(odd):
        at = int(odd[0])
        raise Diverged(
            f"the loss became {float(losses[at])} at step {first + at + 1} of {name}; "
            "the last good checkpoint is kept: lower the learning rate or look at the data of that step"
        )


def _words(row: dict[str, float]) -> str:
    """How an epoch went, in a few words beside its progress bar."""
    validation = f", validation {row['validation_metric']:.1%}" if "validation_metric" in row else ""
    density = f", density {row['density']:.2%}" if "density" in row else ""
    return f"loss {row['train_loss']:.3f}{validation}{density}"


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The recipe's precision for what is computed inside."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.resolved_precision(device) == "bf16")


def length_of(batches: Iterable[Batch]) -> int:
    """How many batches a pass has; TombolaError if they do not say."""
    try:
        length = len(batches) if isinstance(batches, Sized) else 0
    except TypeError:  # a DataLoader whose sampler or stream has none
        length = 0
    if not length:
        raise TombolaError(
            "the task's training batches have no length; let batches() return a list, DataLoader or the like"
        )
    return length


def _saved(state: State, observers: Sequence[Observer], cost: Cost) -> dict[str, Any]:
    return {
        "values": tensors_of(state.model),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "epoch": state.epoch,
        "history": state.history,
        "observers": [observer.state_dict() for observer in observers],
        "cost": asdict(cost),
    }


def _restore(saved: dict[str, Any], state: State, observers: Sequence[Observer]) -> Cost:
    put_values(state.model, saved["values"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step, state.epoch, state.history = saved["step"], saved["epoch"], saved["history"]
    for observer, own in zip(observers, saved["observers"], strict=True):
        observer.load_state_dict(own)
    return Cost(**saved["cost"])
