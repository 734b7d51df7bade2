"""The task: all that a method knows of the user's world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from tombola.scores import Batch
from tombola.training.own_optimizer import OptimizerFactory, SchedulerFactory
from tombola.training.recipe import Recipe

Split = Literal["train", "validation", "test"]


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
        """The mean metric of a batch; larger is better, unless its name is that of an error."""
        ...


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

    @property
    def adversary(self) -> Any:
        return getattr(self.task, "adversary", None)

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


def unwrap(task: Any, name: str) -> Any:
    """Find what a task really calls, inside all wrappers that leave it as it is.

    Args:
        task: a task, or a `TaskWrapper` around one.
        name: of one of its attributes, as "loss".

    Returns:
        The attribute of the innermost task whose wrappers only pass it on.
    """
    while isinstance(task, TaskWrapper) and getattr(type(task), name) is getattr(TaskWrapper, name):
        task = task.task
    return getattr(task, name)


def metric_of(task: Task) -> Callable[[Any, Any], Any]:
    """The metric that a task calls, so that it is seen whether it is a mean over batches."""
    return unwrap(task, "metric")


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
        A copy of a dataclass that has the recipe as a field, also inside wrappers; a wrapper around any other task.

    Examples:
        >>> from tombola.testing import toy_task
        >>> with_recipe(toy_task(), Recipe(epochs=5)).recipe.epochs
        5
    """
    # A copy where there can be one: the task's batches may depend on its recipe, and a wrapper would not change that.
    if is_dataclass(task) and any(entry.name == "recipe" and entry.init for entry in fields(task)):
        return replace(task, recipe=recipe)  # ty: ignore[invalid-argument-type]
    if isinstance(task, TaskWrapper) and type(task).recipe is TaskWrapper.recipe:
        return replace(task, task=with_recipe(task.task, recipe))
    return RecipeTask(task, recipe)
