"""The one loop: every training, searches over scores included, goes through `fit`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores import Batch, batch_size
from tombola.tickets import (
    Mask,
    Recomputation,
    Ticket,
    attach,
    device_of,
    recomputable,
)
from tombola.training.attacked_batches import Attacker, attacker
from tombola.training.batches import move
from tombola.training.checkpoint import Checkpoint
from tombola.training.cost import Cost, SampleFlops, train_samples
from tombola.training.devices import now
from tombola.training.divergence import WATCH_EVERY, check_finite
from tombola.training.evaluation import evaluate
from tombola.training.lengths import length_or_none
from tombola.training.loaders import first_of, pairs_of
from tombola.training.losses import smoothed
from tombola.training.memory import peak_memory, step_memory
from tombola.training.memory_format import channels_last
from tombola.training.metric_values import metric_text
from tombola.training.new_networks import check_single
from tombola.training.observers import Observer, State
from tombola.training.placement import bring_along, placed
from tombola.training.progress import Bars
from tombola.training.randomness import own_randomness, seed_everything
from tombola.training.recipe import Recipe, autocast
from tombola.training.resuming import Begun, Keep, keep_state, restore
from tombola.training.stepping import WeightStepper, grouped
from tombola.training.task import Task, metric_of
from tombola.training.torch_losses import told


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


@torch.enable_grad()
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
    length = length_of(task.batches("train", seed, 0))
    steps_per_epoch = recipe.steps(length)
    begin = recipe.begin(steps_per_epoch)
    with own_randomness(device, seed):  # data may be drawn or augmented at random
        batch = first_of(task.batches("train", seed, 0))
    layout = channels_last(task, model, recipe, batch)
    if layout:
        model.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
    with own_randomness(device, seed):
        step_bytes = step_memory(task, model, batch, recipe)
        stepper = WeightStepper(task, model, recipe, steps_per_epoch)
    network, optimizer = torch.compile(model) if recipe.compile else model, stepper.optimizer
    loss = told(smoothed(task.loss, recipe.label_smoothing))
    attack = attacker(task, network, recipe)
    passes = 1 if attack is None else 1 + attack.passes
    training = Training(task, network, loss, stepper, observers, length, layout, seed, name, attack)
    cost, started = Cost(), now(device)

    with own_randomness(device, seed), attach(attached or Mask({}), model, optimizer if attached else None) as handle:
        state = State(
            model, optimizer, recipe, steps_per_epoch, begin, begin // steps_per_epoch, handle, [], stepper.averaged
        )
        stepper.follow(handle)
        begun = Begun()
        if checkpoint is not None and (saved := checkpoint.load()) is not None:
            with checkpoint.fitting():
                cost, begun = restore(saved, state, stepper, observers)
        flops = SampleFlops.measure(task, model, batch)
        with (bars or Bars()).track(name, recipe.epochs, state.epoch) as tick:
            while state.epoch < recipe.epochs:
                keep = partial(keep_state, checkpoint, state, stepper, observers, cost)
                kept = checkpoint is not None and checkpoint.path.exists()
                with recomputable():
                    losses, trained, lr, ended_early = _epoch(training, state, kept, begun, keep)
                begun = Begun()
                row = {"epoch": state.epoch, "lr": float(lr), "train_loss": float(losses.mean())}
                with stepper.averaged():
                    metric, validation_loss, evaluated = evaluate(task, model, "validation", recipe)
                stepper.epoch_end(validation_loss if evaluated else None)
                row |= {"validation_metric": metric, "validation_loss": validation_loss} if evaluated else {}
                # Only now: a pass counts a stream that does not say how many samples it has.
                samples = train_samples(task.batches("train", seed, 0))
                ended = now(device)
                cost += Cost(
                    samples_forward=trained * passes + evaluated,
                    samples_backward=trained * passes,
                    flops=round(trained * flops.training + evaluated * flops.forward),
                    seconds=ended - started,
                    peak_memory=peak_memory(device),
                    dense_epochs=trained / samples,
                    step_memory=step_bytes + stepper.state_bytes,
                )
                started = ended
                state.history.append(row | {"seconds": cost.seconds})
                # A list and not a generator: each observer is told, also after one that asks to stop.
                stop = any([observer.epoch_end(state) for observer in observers]) or ended_early
                tick(_summary(task, state.history[-1]))
                if stop:
                    break
                if all(observer.resumable(state) is not False for observer in observers):
                    keep_state(checkpoint, state, stepper, observers, cost)
        stepper.finish()
        for observer in observers:
            observer.training_end(state)
    return Fit(tuple(state.history), cost)


@dataclass(frozen=True)
class Training:
    """What stays the same in all epochs of a training.

    Args:
        task: gives the batches.
        network: the model, compiled where the recipe says so.
        loss: of outputs and targets.
        stepper: makes the optimizer's steps.
        observers: look on.
        length: batches of an epoch.
        layout: whether images lie channels last.
        seed: of the order of the data and of all that is random.
        name: of the training, in errors.
        attack: what attacks the inputs, of an adversarial task.
    """

    task: Task
    network: Any
    loss: Any
    stepper: WeightStepper
    observers: Sequence[Observer]
    length: int
    layout: bool
    seed: int
    name: str
    attack: Attacker | None = None


def _epoch(training: Training, state: State, kept: bool, begun: Begun, keep: Keep) -> tuple[Tensor, int, float, bool]:
    """Train for one pass, or the rest of one, or until an observer ends it.

    kept: whether there is an earlier checkpoint; begun: what was done of this epoch before it; keep: keeps the state.
    Returns the loss of each step, the number of samples, the last learning rate, and whether an observer ended it.
    """
    stepper, observers, size = training.stepper, training.observers, state.recipe.accumulate
    seed_everything(training.seed, state.epoch)  # an epoch draws the same after a kill, whatever was drawn before it
    state.model.train()
    for observer in observers:
        observer.epoch_begin(state)
    losses = [loss.to(stepper.device) for loss in begun.losses]
    samples, first, lr, ended = begun.samples, state.step - len(losses), 0.0, False
    recomputation = Recomputation(state.model)
    batches = placed(pairs_of(training.task.batches("train", training.seed, state.epoch)), stepper.device)
    # A ticket rewound to a step within an epoch begins with that epoch's later batches.
    given = (state.step - state.epoch * state.steps_per_epoch) * size
    for group in grouped(islice(batches, given, None), size):
        stepper.zero_grad()
        dense = any(observer.wants_dense_gradients(state) for observer in observers)
        with state.attached.dense_gradients() if dense else nullcontext():
            value, count = _gradients(training, state.recipe, recomputation, group)
        if stepper.unscale():
            for observer in observers:
                observer.before_step(state)
        lr = stepper.step(state.step)
        state.step += 1
        for observer in observers:
            ended |= bool(observer.after_step(state))
        losses.append(value)
        samples, given = samples + count, given + len(group)
        if state.step % state.steps_per_epoch and any(observer.resumable(state) for observer in observers):
            keep(Begun(losses, samples))
        if len(losses) % WATCH_EVERY == 0:
            check_finite(losses[-WATCH_EVERY:], state.step - WATCH_EVERY, training.name, kept)
        if ended:
            break
    checked = len(losses) // WATCH_EVERY * WATCH_EVERY
    check_finite(losses[checked:], first + checked, training.name, kept)
    if given != training.length and not ended:
        raise TombolaError(
            f"the training data gave {given} and not {training.length} batches, as its length says, in epoch "
            f"{state.epoch + 1} of {training.name}; correct its length, or give steps_per_epoch={given}"
        )
    state.epoch += 1
    return torch.stack(losses).float(), samples, lr, ended


def _gradients(
    training: Training, recipe: Recipe, recomputation: Recomputation, group: Sequence[Batch]
) -> tuple[Tensor, int]:
    """Leave the gradients of one step's batches in the network; their mean loss, and how many samples they have."""
    stepper, total, values = training.stepper, sum(map(batch_size, group)), []
    for batch in group:
        inputs, targets = move(batch, stepper.device, training.layout)
        if training.attack is not None:
            inputs = training.attack(inputs, targets)
        recomputation.begin()
        try:
            with autocast(recipe, stepper.device):
                value = training.loss(training.task.forward(training.network, inputs), targets)
        except ValueError as error:
            check_single(batch, training.network, error)
            raise
        if len(group) > 1:
            value = value * (batch_size(batch) / total)
        recomputation.backward(stepper.scaled(value))
        values.append(value.detach())
    return (values[0] if len(values) == 1 else torch.stack(values).sum()), total


def _summary(task: Task, row: dict[str, float]) -> str:
    """How an epoch went, in a few words beside its progress bar."""
    metric = row.get("validation_metric")
    validation = "" if metric is None else f", validation {metric_text(metric_of(task), metric, 1)}"
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
