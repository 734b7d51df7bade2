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
from tombola.training.divergence import WATCH_EVERY, check_finite
from tombola.training.memory import peak_memory, step_memory
from tombola.training.observers import Observer, State
from tombola.training.progress import Bars
from tombola.training.randomness import own_randomness, seed_everything
from tombola.training.recipe import Recipe
from tombola.training.stepping import Stepper, grouped
from tombola.training.task import Split, Task, smoothed


@dataclass(frozen=True)
class Fit:
    """The record of a training.

    Args:
        history: one row an epoch: `epoch`, `lr`, `train_loss`, `seconds`, and where the task has such a split
            `validation_metric` and `validation_loss`.
        cost: what the training took.
        together: how many networks trained at once.
    """

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
    """Train `model` in place by the recipe; the order of the data and all randomness are functions of (seed, epoch).

    Args:
        task: gives batches, forward pass, loss and metric.
        model: the network, on the device where it trains.
        recipe: how it trains; it may differ from the task's.
        seed: of the order of the data and of all that is random.
        attached: a mask or ticket whose dead weights stay dead.
        observers: look on, in this order, and may end the training after an epoch.
        checkpoint: where the state is kept now and then. A killed training goes on after the last epoch kept, and ends
            with the same values.
        bars: show the progress, if they are given.
        name: of the training, beside its bar and in errors.

    Returns:
        History and cost; those of the epochs before a kill are among them.

    Raises:
        Diverged: naming the step at which the loss became infinite or NaN.

    Examples:
        >>> from tombola.testing import toy_task
        >>> task = toy_task(epochs=2)
        >>> model = task.build(seed=0)
        >>> result = fit(task, model, task.recipe, seed=0)
        >>> [row["epoch"] for row in result.history], result.cost.dense_epochs
        ([1, 2], 2.0)
    """
    device = device_of(model)
    steps_per_epoch = recipe.steps(length_of(task.batches("train", seed, 0)))
    begin = recipe.begin(steps_per_epoch)
    channels_last = recipe.wants_channels_last(model)
    if channels_last:
        model.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
    network = torch.compile(model) if recipe.compile else model
    loss = smoothed(task.loss, recipe.label_smoothing)
    with own_randomness(device, seed):  # data may be drawn or augmented at random
        batch = next(iter(task.batches("train", seed, 0)))
        step_bytes = step_memory(task, model, batch, recipe)
        stepper = Stepper(task, model, recipe, steps_per_epoch)
    optimizer = stepper.optimizer
    cost, started = Cost(), time.perf_counter()

    with own_randomness(device, seed), attach(attached or Mask({}), model, optimizer if attached else None) as handle:
        state = State(model, optimizer, recipe, steps_per_epoch, begin, begin // steps_per_epoch, handle)
        stepper.follow(handle)
        if checkpoint is not None and (saved := checkpoint.load()) is not None:
            cost = _restore(saved, state, stepper, observers)
        flops = SampleFlops.measure(task, model, batch)
        samples = train_samples(task.batches("train", seed, 0))
        with (bars or Bars()).track(name, recipe.epochs, state.epoch) as tick:
            while state.epoch < recipe.epochs:
                kept = checkpoint is not None and checkpoint.path.exists()
                where = f"{name}; the last good checkpoint is kept" if kept else name
                losses, trained, lr = _epoch(task, network, loss, state, stepper, seed, observers, channels_last, where)
                row = {"epoch": state.epoch, "lr": float(lr), "train_loss": float(losses.mean())}
                with stepper.averaged():
                    metric, validation_loss, evaluated = evaluate(task, model, "validation", recipe)
                stepper.epoch_end(validation_loss if evaluated else None)
                row |= {"validation_metric": metric, "validation_loss": validation_loss} if evaluated else {}
                now = time.perf_counter()
                cost += Cost(
                    samples_forward=trained + evaluated,
                    samples_backward=trained,
                    flops=round(trained * flops.training + evaluated * flops.forward),
                    seconds=now - started,
                    peak_memory=peak_memory(device),
                    dense_epochs=trained / samples,
                    step_memory=step_bytes + stepper.state_bytes,
                )
                started = now
                state.history.append(row | {"seconds": cost.seconds})
                # A list and not a generator: each observer is told, also after one that asks to stop.
                stop = any([observer.epoch_end(state) for observer in observers])
                tick(_summary(state.history[-1]))
                if stop:
                    break
                if checkpoint is not None and checkpoint.due():
                    checkpoint.save(_to_save(state, stepper, observers, cost))
        stepper.finish()
    return Fit(tuple(state.history), cost)


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, split: Split, recipe: Recipe) -> tuple[float, float, int]:
    """Measure a model on a split, in evaluation mode and in the recipe's precision; modes are restored.

    Args:
        task: gives batches, forward pass, loss and metric.
        model: the network, on its device.
        split: "validation" or "test".
        recipe: gives precision and memory layout.

    Returns:
        Mean metric, mean loss and number of samples; zeros for an empty split.
    """
    device = device_of(model)
    channels_last = recipe.wants_channels_last(model)
    metric = loss = torch.zeros((), device=device)  # summed on the device, which is waited for once at the end
    count = 0
    with in_mode(model, "eval"):
        for batch in task.batches(split, 0, 0):
            inputs, targets = move(batch, device, channels_last)
            with autocast(recipe, device):
                outputs = task.forward(model, inputs)
                size = batch_size(batch)
                loss = loss + task.loss(outputs, targets).float() * size
                metric = metric + task.metric(outputs, targets) * size
            count += size
    return float(metric) / max(count, 1), float(loss) / max(count, 1), count


def _epoch(
    task: Task,
    network: Any,
    loss: Any,
    state: State,
    stepper: Stepper,
    seed: int,
    observers: Sequence[Observer],
    channels_last: bool,
    where: str,
) -> tuple[Tensor, int, float]:
    """Train for one pass, or the rest of one; the loss of each step, the number of samples, the last learning rate.

    network: the model, compiled where the recipe says so; where: what an error calls the training.
    """
    recipe = state.recipe
    seed_everything(seed, state.epoch)  # an epoch draws the same after a kill, whatever was drawn before it
    state.model.train()
    for observer in observers:
        observer.epoch_begin(state)
    losses: list[Tensor] = []
    samples, first, lr = 0, state.step, 0.0
    batches: Iterable[Batch] = task.batches("train", seed, state.epoch)
    # A ticket rewound to a step within an epoch begins with that epoch's later batches.
    left = islice(batches, (state.step - state.epoch * state.steps_per_epoch) * recipe.accumulate, None)
    for group in grouped(left, recipe.accumulate):
        stepper.zero_grad()
        dense = any(observer.wants_dense_gradients(state) for observer in observers)
        with state.attached.dense_gradients() if dense else nullcontext():
            value, size = _gradients(task, network, loss, recipe, stepper, group, channels_last)
        if stepper.unscale():
            for observer in observers:
                observer.before_step(state)
        lr = stepper.step(state.step)
        state.step += 1
        for observer in observers:
            observer.after_step(state)
        losses.append(value)
        samples += size
        if len(losses) % WATCH_EVERY == 0:
            check_finite(losses[-WATCH_EVERY:], state.step - WATCH_EVERY, where)
    checked = len(losses) // WATCH_EVERY * WATCH_EVERY
    check_finite(losses[checked:], first + checked, where)
    state.epoch += 1
    return torch.stack(losses).float(), samples, lr


def _gradients(
    task: Task, network: Any, loss: Any, recipe: Recipe, stepper: Stepper, group: Sequence[Batch], channels_last: bool
) -> tuple[Tensor, int]:
    """Leave the gradients of one step's batches in the network; their mean loss, and how many samples they have."""
    total, values = sum(map(batch_size, group)), []
    for batch in group:
        inputs, targets = move(batch, stepper.device, channels_last)
        with autocast(recipe, stepper.device):
            value = loss(task.forward(network, inputs), targets)
        if len(group) > 1:
            value = value * (batch_size(batch) / total)
        stepper.backward(value)
        values.append(value.detach())
    return (values[0] if len(values) == 1 else torch.stack(values).sum()), total


def _summary(row: dict[str, float]) -> str:
    """How an epoch went, in a few words beside its progress bar."""
    validation = f", validation {row['validation_metric']:.1%}" if "validation_metric" in row else ""
    density = f", density {row['density']:.2%}" if "density" in row else ""
    return f"loss {row['train_loss']:.3f}{validation}{density}"


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """A context that computes in the recipe's precision on a device."""
    precision = recipe.resolved_precision(device)
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, kind, enabled=precision != "float32")


def length_of(batches: Iterable[Batch]) -> int:
    """How many batches a pass has.

    Args:
        batches: one pass over the training split.

    Raises:
        TombolaError: if they have no length.
    """
    try:
        length = len(batches) if isinstance(batches, Sized) else 0
    except TypeError:  # a DataLoader whose sampler or stream has none
        length = 0
    if not length:
        raise TombolaError(
            "the task's training batches have no length; let batches() return a list, DataLoader or the like"
        )
    return length


def _to_save(state: State, stepper: Stepper, observers: Sequence[Observer], cost: Cost) -> dict[str, Any]:
    return {
        "values": tensors_of(state.model),
        "optimizer": state.optimizer.state_dict(),
        "stepper": stepper.state_dict(),
        "step": state.step,
        "epoch": state.epoch,
        "history": state.history,
        "observers": [observer.state_dict() for observer in observers],
        "cost": asdict(cost),
    }


def _restore(saved: dict[str, Any], state: State, stepper: Stepper, observers: Sequence[Observer]) -> Cost:
    """Bring model, optimizer, state and observers to where a checkpoint left them; the cost until then."""
    put_values(state.model, saved["values"])
    state.optimizer.load_state_dict(saved["optimizer"])
    stepper.load_state_dict(saved.get("stepper", {}))  # which older checkpoints do not have
    state.step, state.epoch, state.history = saved["step"], saved["epoch"], saved["history"]
    for observer, observed in zip(observers, saved["observers"], strict=True):
        observer.load_state_dict(observed)
    return Cost(**saved["cost"])
