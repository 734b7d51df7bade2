"""The one loop: every training, searches over scores included, goes through `fit`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores import Batch, batch_size
from tombola.structure import in_mode
from tombola.tickets import (
    Mask,
    Recomputation,
    Ticket,
    attach,
    device_of,
    put_values,
    recomputable,
    tensors_of,
)
from tombola.training.batches import move
from tombola.training.checkpoint import Checkpoint
from tombola.training.cost import Cost, SampleFlops, train_samples
from tombola.training.devices import now
from tombola.training.loaders import first_of, length_or_none, pairs_of
from tombola.training.losses import smoothed
from tombola.training.memory import peak_memory, step_memory
from tombola.training.memory_format import channels_last
from tombola.training.observers import Observer, State
from tombola.training.placement import bring_along, placed
from tombola.training.progress import Bars
from tombola.training.randomness import own_randomness, seed_everything
from tombola.training.recipe import Recipe, autocast
from tombola.training.task import Split, Task

WATCH_EVERY = 100
"""Steps between two looks at the losses: each look waits for the device."""


class Diverged(TombolaError):
    """The loss stopped being a finite number."""


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
    bring_along(task, device)
    steps_per_epoch = length_of(task.batches("train", seed, 0))
    begin = recipe.begin(steps_per_epoch)
    with own_randomness(device, seed):  # data may be drawn or augmented at random
        batch = first_of(task.batches("train", seed, 0))
    layout = channels_last(task, model, recipe, batch)
    if layout:
        model.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
    optimizer = recipe.make_optimizer(model.parameters())
    network = torch.compile(model) if recipe.compile else model
    loss = smoothed(task.loss, recipe.label_smoothing)
    with own_randomness(device, seed):
        step_bytes = step_memory(task, model, batch, recipe)
    cost, started = Cost(), now(device)

    with own_randomness(device, seed), attach(attached or Mask({}), model, optimizer if attached else None) as handle:
        state = State(model, optimizer, recipe, steps_per_epoch, begin, begin // steps_per_epoch, handle)
        if checkpoint is not None and (saved := checkpoint.load()) is not None:
            cost = _restore(saved, state, observers)
        flops = SampleFlops.measure(task, model, batch)
        with (bars or Bars()).track(name, recipe.epochs, state.epoch) as tick:
            while state.epoch < recipe.epochs:
                with recomputable():
                    losses, trained = _epoch(task, network, loss, state, seed, observers, layout, name)
                row = {"epoch": state.epoch, "lr": recipe.lr_at(state.step - 1, steps_per_epoch)}
                row |= {"train_loss": float(losses.mean())}
                metric, validation_loss, evaluated = evaluate(task, model, "validation", recipe)
                row |= {"validation_metric": metric, "validation_loss": validation_loss} if evaluated else {}
                # Only now: a pass counts a stream that does not say how many samples it has.
                samples = train_samples(task.batches("train", seed, 0))
                ended = now(device)
                cost += Cost(
                    samples_forward=trained + evaluated,
                    samples_backward=trained,
                    flops=round(trained * flops.training + evaluated * flops.forward),
                    seconds=ended - started,
                    peak_memory=peak_memory(device),
                    dense_epochs=trained / samples,
                    step_memory=step_bytes,
                )
                started = ended
                state.history.append(row | {"seconds": cost.seconds})
                # A list and not a generator: each observer is told, also after one that asks to stop.
                stop = any([observer.epoch_end(state) for observer in observers])
                tick(_summary(state.history[-1]))
                if stop:
                    break
                if checkpoint is not None and checkpoint.due():
                    checkpoint.save(_to_save(state, observers, cost))
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
    bring_along(task, device)
    layout: bool | None = None
    metric = loss = torch.zeros((), device=device)  # summed on the device, which is waited for once at the end
    count = 0
    with in_mode(model, "eval"):
        for batch in placed(pairs_of(task.batches(split, 0, 0)), device):
            layout = channels_last(task, model, recipe, batch) if layout is None else layout
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
    network: Any,
    loss: Any,
    state: State,
    seed: int,
    observers: Sequence[Observer],
    layout: bool,
    name: str,
) -> tuple[Tensor, int]:
    """Train for one pass, or the rest of one; the loss of each step, and the number of samples.

    network: the model, compiled where the recipe says so; layout: whether images lie channels last.
    """
    recipe, optimizer, device = state.recipe, state.optimizer, device_of(state.model)
    seed_everything(seed, state.epoch)  # an epoch draws the same after a kill, whatever was drawn before it
    state.model.train()
    for observer in observers:
        observer.epoch_begin(state)
    losses: list[Tensor] = []
    samples, first = 0, state.step
    recomputation = Recomputation(state.model)
    batches = placed(pairs_of(task.batches("train", seed, state.epoch)), device)
    # A ticket rewound to a step within an epoch begins with that epoch's later batches.
    for batch in islice(batches, state.step - state.epoch * state.steps_per_epoch, None):
        inputs, targets = move(batch, device, layout)
        recomputation.begin()
        with autocast(recipe, device):
            value = loss(task.forward(network, inputs), targets)
        optimizer.zero_grad()
        dense = any(observer.wants_dense_gradients(state) for observer in observers)
        with state.attached.dense_gradients() if dense else nullcontext():
            recomputation.backward(value)
        for observer in observers:
            observer.before_step(state)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(state.step, state.steps_per_epoch)
        optimizer.step()
        state.step += 1
        for observer in observers:
            observer.after_step(state)
        losses.append(value.detach())
        samples += batch_size(batch)
        if len(losses) % WATCH_EVERY == 0:
            _check_finite(losses[-WATCH_EVERY:], state.step - WATCH_EVERY, name)
    checked = len(losses) // WATCH_EVERY * WATCH_EVERY
    _check_finite(losses[checked:], first + checked, name)
    given = state.step - state.epoch * state.steps_per_epoch
    if given != state.steps_per_epoch:
        raise TombolaError(
            f"the training data gave {given} batches in epoch {state.epoch + 1} of {name} where its length says "
            f"{state.steps_per_epoch}; correct its length, or give steps_per_epoch"
        )
    state.epoch += 1
    return torch.stack(losses).float(), samples


def _check_finite(losses: list[Tensor], first: int, name: str) -> None:
    """Raise Diverged for the first loss that is not finite; first: the step of the first loss, from 0."""
    if not losses:
        return
    bad = (~torch.stack(losses).isfinite()).nonzero().flatten()
    if len(bad):
        place = int(bad[0])
        raise Diverged(
            f"the loss became {float(losses[place])} at step {first + place + 1} of {name}; "
            "the last good checkpoint is kept: lower the learning rate or look at the data of that step"
        )


def _summary(row: dict[str, float]) -> str:
    """How an epoch went, in a few words beside its progress bar."""
    validation = f", validation {row['validation_metric']:.1%}" if "validation_metric" in row else ""
    density = f", density {row['density']:.2%}" if "density" in row else ""
    return f"loss {row['train_loss']:.3f}{validation}{density}"


def length_of(batches: Iterable[Batch]) -> int:
    """How many batches a pass has.

    Args:
        batches: one pass over the training split.

    Raises:
        TombolaError: if they have no length, or there is none.
    """
    length = length_or_none(batches)
    if length is None:
        raise TombolaError(
            "the task's training batches have no length; let batches() return a list, DataLoader or the like"
        )
    if not length:
        raise TombolaError("the training data gives no batch; give at least one sample")
    return length


def _to_save(state: State, observers: Sequence[Observer], cost: Cost) -> dict[str, Any]:
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
    """Bring model, optimizer, state and observers to where a checkpoint left them; the cost until then."""
    put_values(state.model, saved["values"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step, state.epoch, state.history = saved["step"], saved["epoch"], saved["history"]
    for observer, observed in zip(observers, saved["observers"], strict=True):
        observer.load_state_dict(observed)
    return Cost(**saved["cost"])
