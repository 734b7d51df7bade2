"""The task: all that a method knows of the user's world."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import LATER
from tombola.scores import Batch, forward
from tombola.training.batches import MemoryBatches, pick, split_off
from tombola.training.data_identity import digest_of_splits
from tombola.training.own_optimizer import OptimizerFactory, SchedulerFactory, own
from tombola.training.randomness import mixed, own_randomness
from tombola.training.recipe import Recipe

Split = Literal["train", "validation", "test"]
EVALUATION_BATCH = 1024


@runtime_checkable
class Task(Protocol):
    """What to learn: a network, data in three splits, a loss, a metric and a recipe.

    A task must be picklable. It may also have `narrow(width) -> Task`, which builds a narrower network for the control
    of the same size, `data_digest`, which identifies its data, and `optimizer(model)` and
    `scheduler(optimizer, steps)`, which take the place of the recipe's. `SupervisedTask` is the ready one.
    """

    @property
    def recipe(self) -> Recipe:
        """How the network trains."""
        ...

    def build(self, seed: int) -> nn.Module:
        """A freshly initialised network, on the CPU; the same for the same seed."""
        ...

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]:
        """One pass over a split: pairs (inputs, targets) with a length, in an order that (seed, epoch) decides."""
        ...

    def forward(self, model: nn.Module, inputs: Any, /) -> Any:
        """The model's outputs; inputs: a tensor, or a tuple or dict of tensors."""
        ...

    def loss(self, outputs: Any, targets: Any, /) -> Tensor:
        """The mean loss of a batch."""
        ...

    def metric(self, outputs: Any, targets: Any, /) -> Tensor:
        """The mean metric of a batch; larger is better."""
        ...


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose largest output is that of the target class.

    Args:
        outputs: (samples, classes).
        targets: class numbers, (samples,).

    Examples:
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        tensor(0.5000)
    """
    return (outputs.argmax(-1) == targets).float().mean()


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy.

    Args:
        outputs: the logit of class 1, (samples, 1) or (samples,).
        targets: 0 or 1, (samples,).
    """
    return F.binary_cross_entropy_with_logits(outputs.squeeze(-1), targets.to(outputs.dtype))


def binary_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose logit is positive for target 1, or not positive for target 0.

    Args:
        outputs: the logit of class 1, (samples, 1) or (samples,).
        targets: 0 or 1, (samples,).
    """
    return ((outputs.squeeze(-1) > 0) == targets.bool()).float().mean()


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance between outputs and targets, mean over samples.

    Args:
        outputs: (samples, outputs).
        targets: numbers of the same shape, or class numbers, which become one-hot vectors.

    Raises:
        TombolaError: for targets that do not fit.
    """
    return (outputs - as_outputs(targets, outputs)).square().sum() / (2 * len(outputs))


def as_outputs(targets: Tensor, outputs: Tensor) -> Tensor:
    """Bring targets into the shape of a network's outputs, in float32 or better.

    Args:
        targets: numbers in the shape of the outputs, which stay as they are; one number a sample, for a single output;
            or class numbers, which become one-hot vectors.
        outputs: (…, classes).

    Raises:
        TombolaError: for targets that do not fit.

    Examples:
        >>> as_outputs(torch.tensor([1, 0]), torch.zeros(2, 3))
        tensor([[0., 1., 0.],
                [1., 0., 0.]])
    """
    single = torch.promote_types(outputs.dtype, torch.float32)
    if targets.shape == outputs.shape:
        return targets.to(single)
    *samples, classes = outputs.shape
    if list(targets.shape) != samples or (targets.is_floating_point() and classes > 1):
        raise TombolaError(
            f"targets of shape {tuple(targets.shape)} do not fit outputs of shape {tuple(outputs.shape)}; give class "
            "numbers, or as many numbers a sample as there are outputs"
        )
    if classes == 1:
        return targets.unsqueeze(-1).to(single)
    try:
        return F.one_hot(targets.long(), classes).to(single)
    except RuntimeError:
        check_classes(targets, classes)
        raise


def check_classes(targets: Tensor, classes: int) -> None:
    """Check class numbers against the number of outputs; on a GPU torch would not say which one is wrong.

    Args:
        targets: class numbers.
        classes: how many outputs there are.

    Raises:
        TombolaError: naming the smallest and the largest class, if the outputs have no place for one of them.
    """
    low, high = map(int, targets.aminmax())
    if low < 0 or high >= classes:
        raise TombolaError(
            f"there are classes from {low} to {high}, but the network has {classes} outputs; number classes from 0 to "
            f"{classes - 1}"
        )


@dataclass(frozen=True)
class SupervisedTask:
    """A task from a network's factory and data.

    Args:
        model: builds a freshly initialised network, without arguments.
        data: "train" and "test", and "validation" if there is one. Each is a pair (inputs, targets) of tensors, or
            batches with a length, as a DataLoader.
        loss: mean loss of outputs and targets.
        recipe: how the network trains.
        metric: mean metric of outputs and targets, larger is better.
        validation: share of the training data to set aside where `data` has no such split; the choice is always the
            same. Tensors only.
        forward: calls a model with inputs; by default a dict gives keyword arguments and a tuple positional ones.
        narrower: makes the factory of a narrower network from a width, for the control of the same size.
        labels: what the command line calls this task, for the ticket's file.
        optimizer: makes the optimizer of a network, in place of the recipe's, so that groups of parameters may have
            learning rates of their own. The recipe's schedule scales these rates as it does the recipe's; so does a
            learning rate that a ticket prescribes. Searches train scores by the recipe.
        scheduler: makes the schedule of an optimizer for so many steps, in place of the recipe's. One that moves on
            once an epoch is `tb.training.ByEpoch(…)`; ReduceLROnPlateau follows the loss on the validation split.

    Raises:
        TombolaError: for data without a necessary split, a share that is not between 0 and 1, and factories of an
            optimizer or scheduler that are none.

    Examples:
        >>> inputs, targets = torch.randn(100, 4), torch.randint(3, (100,))
        >>> task = SupervisedTask(lambda: nn.Linear(4, 3), {"train": (inputs, targets), "test": (inputs, targets)})
        >>> len(task.batches("train", seed=0, epoch=0)), task.batches("validation", 0, 0).count
        (1, 10)
        >>> def two_rates(model):
        ...     groups = [{"params": [model.bias], "lr": 0.2}, {"params": [model.weight], "weight_decay": 0.01}]
        ...     return torch.optim.AdamW(groups, lr=0.1)
        >>> replace(task, optimizer=two_rates).optimizer(nn.Linear(4, 3)).param_groups[0]["lr"]
        0.2
    """

    model: Callable[[], nn.Module]
    data: Mapping[str, Any]
    loss: Callable[[Any, Any], Tensor] = F.cross_entropy
    recipe: Recipe = Recipe()
    metric: Callable[[Any, Any], Tensor] = accuracy
    validation: float = 0.1
    forward: Callable[[nn.Module, Any], Any] = forward
    narrower: Callable[[float], Callable[[], nn.Module]] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    optimizer: OptimizerFactory | None = field(default=None, metadata=LATER)
    scheduler: SchedulerFactory | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        _check_factory(self.model)
        for name in ("optimizer", "scheduler"):
            own(self, name)
        for split in ("train", "test"):
            if split not in self.data:
                raise TombolaError(f"the data has no '{split}'; give a mapping with 'train' and 'test'")
        if "validation" not in self.data and not _in_memory(self.data["train"]):
            raise TombolaError(
                "the data comes in batches and has no 'validation'; give one, since a search never sees the test split"
            )
        if not 0 < self.validation < 1:
            raise TombolaError(f"validation is {self.validation}; give the share to set aside, between 0 and 1")

    def build(self, seed: int) -> nn.Module:
        # On the CPU, so that a seed gives the same network on every device.
        with own_randomness(torch.device("cpu"), seed):
            model = self.model()
        if not isinstance(model, nn.Module):
            raise TombolaError(f"the model's factory gave a {type(model).__name__}; it must return an nn.Module")
        return model

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]:
        source = self._splits[split]
        if not _in_memory(source):
            return source
        if split != "train":
            return MemoryBatches(*source, size=max(self.recipe.batch, EVALUATION_BATCH))
        return MemoryBatches(*source, self.recipe.batch, mixed(seed, epoch), self.recipe.augment, self.recipe.drop_last)

    def narrow(self, width: float) -> SupervisedTask:
        """The same task with a network of `width` times the hidden units; TombolaError without `narrower`."""
        if self.narrower is None:
            raise TombolaError("this task cannot build a narrower network; give SupervisedTask(narrower=…)")
        return replace(self, model=self.narrower(width))

    @cached_property
    def data_digest(self) -> str:
        """A fingerprint of the data, as `digest_of_splits` makes it, and of the share set aside unless it is usual."""
        set_aside = "validation" not in self.data and self.validation != SupervisedTask.validation
        return digest_of_splits(self.data) + (f" without {self.validation:g}" if set_aside else "")

    @cached_property
    def _splits(self) -> dict[str, Any]:
        splits = dict(self.data)
        if "validation" not in splits:
            inputs, targets = splits["train"]
            rest, aside = split_off(len(targets), self.validation)
            splits["train"] = pick(inputs, rest), pick(targets, rest)
            splits["validation"] = pick(inputs, aside), pick(targets, aside)
        return splits

    def __getstate__(self) -> dict[str, Any]:
        # Without what is worked out from the fields: it would double the data in every pickle.
        return {key: value for key, value in self.__dict__.items() if key not in ("_splits", "data_digest")}


@dataclass(frozen=True)
class TaskWrapper:
    """A task that passes everything on to another one, except what a subclass overrides.

    Args:
        task: the other task.
    """

    task: Task

    @property
    def recipe(self) -> Recipe:
        return self.task.recipe

    @property
    def labels(self) -> Mapping[str, str]:
        return getattr(self.task, "labels", {})

    @property
    def optimizer(self) -> OptimizerFactory | None:
        return getattr(self.task, "optimizer", None)

    @property
    def scheduler(self) -> SchedulerFactory | None:
        return getattr(self.task, "scheduler", None)

    def build(self, seed: int) -> nn.Module:
        return self.task.build(seed)

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]:
        return self.task.batches(split, seed, epoch)

    def forward(self, model: nn.Module, inputs: Any, /) -> Any:
        return self.task.forward(model, inputs)

    def loss(self, outputs: Any, targets: Any, /, **options: Any) -> Tensor:
        return self.task.loss(outputs, targets, **options)

    def metric(self, outputs: Any, targets: Any, /) -> Tensor:
        return self.task.metric(outputs, targets)


@dataclass(frozen=True)
class RecipeTask(TaskWrapper):
    """The same task with another recipe.

    Args:
        task: the other task.
        recipe: how the network trains here.
    """

    recipe: Recipe = Recipe()

    def __getattr__(self, name: str) -> Any:
        # While it is unpickled there is no `task` yet, and looking it up would come back here without end.
        if name.startswith("__") or name == "task":
            raise AttributeError(name)
        return getattr(self.task, name)


def with_recipe(task: Task, recipe: Recipe) -> Task:
    """Give a task another recipe.

    Args:
        task: any task; it stays as it is.
        recipe: how the network trains in the new one.

    Returns:
        A copy of a dataclass that has the recipe as a field, a wrapper around any other task.

    Examples:
        >>> from tombola.testing import toy_task
        >>> with_recipe(toy_task(), Recipe(epochs=5)).recipe.epochs
        5
    """
    # A copy where there can be one: the task's batches may depend on its recipe, and a wrapper would not change that.
    if is_dataclass(task) and any(entry.name == "recipe" and entry.init for entry in fields(task)):
        return replace(task, recipe=recipe)  # ty: ignore[invalid-argument-type]
    return RecipeTask(task, recipe)


def smoothed(loss: Callable[[Any, Any], Tensor], smoothing: float) -> Callable[[Any, Any], Tensor]:
    """Give a loss label smoothing.

    Args:
        loss: of outputs and targets; it must take `label_smoothing` unless that is 0.
        smoothing: from 0 to 1.

    Returns:
        A loss of outputs and targets.
    """
    if not smoothing:
        return loss
    return lambda outputs, targets: loss(outputs, targets, label_smoothing=smoothing)  # ty: ignore[unknown-argument]


def _check_factory(factory: Any) -> None:
    """TombolaError unless the task's model is a function without arguments, which makes a new network for each seed."""
    if isinstance(factory, nn.Module):
        kind = type(factory).__name__
        raise TombolaError(
            "the task's model is a network, but each seed needs a new one; give a function that makes it, as "
            f"model=lambda: {kind}(…)"
        )
    try:
        inspect.signature(factory).bind()
    except ValueError:  # a callable written in C may not say what it accepts
        return
    except TypeError as error:
        name = getattr(factory, "__name__", type(factory).__name__)
        raise TombolaError(
            f"the task's model '{name}' cannot be called without arguments ({error}); give a function that needs none, "
            f"as model=lambda: {name}(…)"
        ) from error


def _in_memory(source: Any) -> bool:
    return isinstance(source, tuple | list) and len(source) == 2 and isinstance(source[1], Tensor)
