"""The task: all that a method knows of the user's world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores import Batch, forward
from tombola.training.batches import MemoryBatches, pick, split_off
from tombola.training.data_identity import digest_of_splits
from tombola.training.randomness import mixed, own_randomness
from tombola.training.recipe import Recipe

Split = Literal["train", "validation", "test"]
EVALUATION_BATCH = 1024


@runtime_checkable
class Task(Protocol):
    """What to learn: a network, data in three splits, a loss, a metric and a recipe; picklable.

    `batches` gives a sized iterable of (inputs, targets) whose order is a function of (seed, epoch);
    `metric` is the batch's mean, larger = better. A task may also have `narrow(width) -> Task`.
    """

    @property
    def recipe(self) -> Recipe: ...

    def build(self, seed: int) -> nn.Module: ...

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]: ...

    def forward(self, model: nn.Module, inputs: Any, /) -> Any: ...

    def loss(self, outputs: Any, targets: Any, /) -> Tensor: ...

    def metric(self, outputs: Any, targets: Any, /) -> Tensor: ...


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose largest output is the target's."""
    return (outputs.argmax(-1) == targets).float().mean()


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean loss of one output a sample, the logit of class 1; targets are 0 or 1."""
    return F.binary_cross_entropy_with_logits(outputs.squeeze(-1), targets.to(outputs.dtype))


def binary_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose one output is positive where the target is 1, and not where it is 0."""
    return ((outputs.squeeze(-1) > 0) == targets.bool()).float().mean()


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """½ of the squared distance to the targets, mean over samples; classes are one-hot vectors."""
    return (outputs - as_outputs(targets, outputs)).square().sum() / (2 * len(outputs))


def as_outputs(targets: Tensor, outputs: Tensor) -> Tensor:
    """Targets in the shape of a network's outputs, in single precision or better.

    Numbers are as they are; classes are one-hot vectors, but numbers too where there is one output a sample.
    TombolaError for targets that do not fit.
    """
    single = torch.promote_types(outputs.dtype, torch.float32)
    if targets.shape == outputs.shape:
        return targets.to(single)
    *each, classes = outputs.shape
    if list(targets.shape) != each or (targets.is_floating_point() and classes > 1):
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
    """TombolaError for class numbers that the outputs have no place for; a GPU would not say which."""
    low, high = (int(end) for end in targets.aminmax())
    if low < 0 or high >= classes:
        raise TombolaError(
            f"there are classes from {low} to {high}, but the network has {classes} outputs; number classes from 0 to "
            f"{classes - 1}"
        )


@dataclass(frozen=True)
class SupervisedTask:
    """A task from a network's factory and data.

    model: called without arguments, gives a freshly initialised network. data: "train" and "test", and
    "validation" if there is one, each a pair (inputs, targets) of tensors or a sized iterable of batches, as a
    DataLoader. validation: the share of in-memory training data set aside where data has no such split; the
    choice is fixed. narrower: width → factory of a narrower network, for the control of the same size. labels:
    what this task is called on the command line, written into tickets.
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

    def __post_init__(self) -> None:
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
        """The same task with a network of `width` times the hidden units."""
        if self.narrower is None:
            raise TombolaError("this task cannot build a narrower network; give SupervisedTask(narrower=…)")
        return replace(self, model=self.narrower(width))

    @cached_property
    def data_digest(self) -> str:
        """A fingerprint of all data, or of the first batch where batches only come by, and of the share set aside."""
        set_aside = "validation" not in self.data and self.validation != SupervisedTask.validation
        return digest_of_splits(self.data) + (f" without {self.validation:g}" if set_aside else "")

    @cached_property
    def _splits(self) -> dict[str, Any]:
        splits = dict(self.data)
        if "validation" not in splits:
            inputs, targets = splits["train"]
            kept, aside = split_off(len(targets), self.validation)
            splits["train"] = pick(inputs, kept), pick(targets, kept)
            splits["validation"] = pick(inputs, aside), pick(targets, aside)
        return splits

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_splits", "data_digest")}


@dataclass(frozen=True)
class TaskWrapper:
    """Another task, but for what a subclass makes different."""

    task: Task

    @property
    def recipe(self) -> Recipe:
        return self.task.recipe

    @property
    def labels(self) -> Mapping[str, str]:
        return getattr(self.task, "labels", {})

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
    """The same task, trained by another recipe."""

    recipe: Recipe = Recipe()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "task":
            raise AttributeError(name)
        return getattr(self.task, name)


def with_recipe(task: Task, recipe: Recipe) -> Task:
    """The same task with another recipe: a copy where it holds one as a field, which its batches may go by."""
    if is_dataclass(task) and any(own.name == "recipe" and own.init for own in fields(task)):
        return replace(task, recipe=recipe)  # ty: ignore[invalid-argument-type]
    return RecipeTask(task, recipe)


def smoothed(loss: Callable[[Any, Any], Tensor], smoothing: float) -> Callable[[Any, Any], Tensor]:
    """The loss with label smoothing, which it must take as an argument if it is not zero."""
    if not smoothing:
        return loss
    return lambda outputs, targets: loss(outputs, targets, label_smoothing=smoothing)  # ty: ignore[unknown-argument]


def _in_memory(source: Any) -> bool:
    return isinstance(source, tuple | list) and len(source) == 2 and isinstance(source[1], Tensor)
