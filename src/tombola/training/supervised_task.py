"""The ready task: a network's factory, data in splits, a loss, a metric and a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tombola.errors import TombolaError
from tombola.scores import Batch, forward
from tombola.structure import in_mode
from tombola.training.batches import MemoryBatches, pick, split_off
from tombola.training.data_identity import digest_of_splits
from tombola.training.losses import check_smoothing
from tombola.training.metrics import accuracy
from tombola.training.randomness import mixed, own_randomness
from tombola.training.recipe import Recipe
from tombola.training.task import Split

EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class SupervisedTask:
    """A task from a network's factory and data.

    Args:
        model: builds a freshly initialised network, without arguments. Lazy layers find their shapes on a first batch.
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

    Raises:
        TombolaError: for data without a necessary split, and a share that is not between 0 and 1.

    Examples:
        >>> inputs, targets = torch.randn(100, 4), torch.randint(3, (100,))
        >>> task = SupervisedTask(lambda: nn.Linear(4, 3), {"train": (inputs, targets), "test": (inputs, targets)})
        >>> len(task.batches("train", seed=0, epoch=0)), task.batches("validation", 0, 0).count
        (1, 10)
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
        _check_factory(self.model)
        for split in ("train", "test"):
            if split not in self.data:
                raise TombolaError(f"the data has no '{split}'; give a mapping with 'train' and 'test'")
        if "validation" not in self.data and not _in_memory(self.data["train"]):
            raise TombolaError(
                "the data comes in batches and has no 'validation'; give one, since a search never sees the test split"
            )
        if not 0 < self.validation < 1:
            raise TombolaError(f"validation is {self.validation}; give the share to set aside, between 0 and 1")
        check_smoothing(self.loss, self.recipe.label_smoothing)

    def build(self, seed: int) -> nn.Module:
        # On the CPU, so that a seed gives the same network on every device.
        with own_randomness(torch.device("cpu"), seed):
            model = self.model()
            if not isinstance(model, nn.Module):
                raise TombolaError(f"the model's factory gave a {type(model).__name__}; it must return an nn.Module")
            if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
                self._initialise(model)
        return model

    @torch.no_grad()
    def _initialise(self, model: nn.Module) -> None:
        """Call a network with lazy layers on a batch, so that they find their shapes and draw their values."""
        with own_randomness(torch.device("cpu"), 0):  # apart from what the layers draw
            inputs, _ = next(iter(self.batches("train", 0, 0)))
        with in_mode(model, "eval"):
            self.forward(model, inputs)

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
