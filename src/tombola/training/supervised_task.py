"""The ready task: a network's factory, data in splits, a loss, a metric and a recipe."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import Subset

from tombola.errors import TombolaError
from tombola.fields import LATER
from tombola.nested import samples_in, tensors_in
from tombola.registry import LOSSES, METRICS, Registry
from tombola.scores import Batch, Target, forward
from tombola.structure import in_mode
from tombola.training.batches import MemoryBatches, check_usable, pick, split_off
from tombola.training.data_identity import digest_of_splits, is_indexed
from tombola.training.lengths import length_or_none
from tombola.training.loaders import LoadedBatches, first_of
from tombola.training.losses import check_smoothing
from tombola.training.metrics import accuracy
from tombola.training.own_optimizer import OptimizerFactory, SchedulerFactory, own
from tombola.training.randomness import mixed, own_randomness
from tombola.training.recipe import Recipe
from tombola.training.splits import InBatches, InMemory, Part, Samples, read_split
from tombola.training.task import Split

EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class SupervisedTask:
    """A task from a network's factory and data.

    Args:
        model: builds a freshly initialised network, without arguments. Lazy layers find their shapes on a first batch.
        data: "train" and "test", and "validation" if there is one. Each is one of
            - a pair (inputs, targets) of tensors, arrays or lists of numbers, in tuples and dicts too;
            - a data set, torch's or one of Hugging Face, from which the recipe's batches are made;
            - batches: a DataLoader, a list, another iterable, or a function that returns one. Of streams see
              `steps_per_epoch`.
        loss: mean loss of outputs and targets, or the name of one, as "mse"; `tombola methods losses` lists them.
        recipe: how the network trains.
        metric: mean metric of outputs and targets, or the name of one, as "r2"; `tombola methods metrics` lists them.
            None takes the one that goes with a named loss, and accuracy with a function. Larger is better, unless
            yours has the name of an error, as `rmse`, or an attribute `higher_is_better` that is False.
        validation: share of the training data to set aside where `data` has no such split; the choice is always the
            same. Not for data that comes in batches.
        forward: calls a model with inputs; by default a dict gives keyword arguments and a tuple positional ones.
        narrower: makes the factory of a narrower network from a width, for the control of the same size.
        labels: what the command line calls this task, for the ticket's file.
        steps_per_epoch: how many batches make an epoch where the training data does not say it, or fewer than it says.
            Each epoch begins the stream anew; a stream with `set_epoch` is told which epoch it is. A mapping gives
            numbers for "validation" and "test" too, where those streams do not end.
        target: which part of a batch or sample is the target where they are no pairs: a key, a place in a tuple, or
            several keys. By default the one key of "labels", "label", "targets", "target", "y". What is left are the
            inputs.
        optimizer: makes the optimizer of a network, in place of the recipe's, so that groups of parameters may have
            learning rates of their own. The recipe's schedule scales these rates as it does the recipe's; so does a
            learning rate that a ticket prescribes. Searches train scores by the recipe.
        scheduler: makes the schedule of an optimizer for so many steps, in place of the recipe's. One that moves on
            once an epoch is `tb.training.ByEpoch(…)`; ReduceLROnPlateau follows the loss on the validation split.

    Raises:
        TombolaError: for data without a necessary split, without samples, or with inputs and targets of different
            lengths; data that cannot be read in each epoch; a name that does not exist, a share that is not between
            0 and 1, and factories of an optimizer or scheduler that are none.

    Examples:
        >>> inputs, targets = torch.randn(100, 4), torch.randint(3, (100,))
        >>> task = SupervisedTask(lambda: nn.Linear(4, 3), {"train": (inputs, targets), "test": (inputs, targets)})
        >>> len(task.batches("train", seed=0, epoch=0)), task.batches("validation", 0, 0).count
        (1, 10)
        >>> numbers = {split: (inputs, inputs[:, :1]) for split in ("train", "test")}
        >>> SupervisedTask(lambda: nn.Linear(4, 1), numbers, loss="mse").metric
        R2()
        >>> def two_rates(model):
        ...     groups = [{"params": [model.bias], "lr": 0.2}, {"params": [model.weight], "weight_decay": 0.01}]
        ...     return torch.optim.AdamW(groups, lr=0.1)
        >>> replace(task, optimizer=two_rates).optimizer(nn.Linear(4, 3)).param_groups[0]["lr"]
        0.2
    """

    model: Callable[[], nn.Module]
    data: Mapping[str, Any]
    loss: Any = F.cross_entropy
    recipe: Recipe = Recipe()
    metric: Any = None
    validation: float = 0.1
    forward: Callable[[nn.Module, Any], Any] = forward
    narrower: Callable[[float], Callable[[], nn.Module]] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    steps_per_epoch: int | Mapping[str, int] | None = None
    target: Target = None
    optimizer: OptimizerFactory | None = field(default=None, metadata=LATER)
    scheduler: SchedulerFactory | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        _check_factory(self.model)
        for name in ("optimizer", "scheduler"):
            own(self, name)
        usual = LOSSES.entry(self.loss).metric if isinstance(self.loss, str) else ""
        metric = self.metric if self.metric is not None else usual or accuracy
        object.__setattr__(self, "loss", _measure("loss", self.loss, LOSSES))
        object.__setattr__(self, "metric", _measure("metric", metric, METRICS))
        for split in ("train", "test"):
            if split not in self.data:
                raise TombolaError(f"the data has no '{split}'; give a mapping with 'train' and 'test'")
        if not 0 < self.validation < 1:
            raise TombolaError(f"validation is {self.validation}; give the share to set aside, between 0 and 1")
        parts = {split: read_split(source, split, self.target) for split, source in self.data.items()}
        if "validation" not in parts and isinstance(parts["train"], InBatches):
            raise TombolaError(
                "the data comes in batches and has no 'validation'; give one, since a search never sees the test split"
            )
        for split, part in parts.items():
            if part.count == 0 and split != "validation":  # which, empty, says that there is none
                raise TombolaError(f"the split '{split}' is empty; give it samples")
        self._check_steps(parts)
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
            inputs, _ = first_of(self.batches("train", 0, 0))
        with in_mode(model, "eval"):
            self.forward(model, inputs)

    def batches(self, split: Split, seed: int, epoch: int) -> Iterable[Batch]:
        part, recipe, train = self._parts[split], self.recipe, split == "train"
        if isinstance(part, InMemory):
            tensors = part.inputs, part.targets
            if not train:
                return MemoryBatches(*tensors, size=max(recipe.batch, EVALUATION_BATCH))
            return MemoryBatches(*tensors, recipe.batch, mixed(seed, epoch), recipe.augment, recipe.drop_last)
        if isinstance(part, Samples):
            order = mixed(seed, epoch) if train else None
            source, owner = part.loader(recipe.batch, order, train and recipe.drop_last), part.dataset
        else:
            source, owner = part.batches(recipe.batch, train and recipe.drop_last), None
            owner = None if source is part.source else part.source
        augment = recipe.augment if train else ()
        steps = self._steps.get(split)
        return LoadedBatches(source, seed, epoch, split, steps, self.target, self._is_double, augment, owner)

    def narrow(self, width: float) -> SupervisedTask:
        """The same task with a network of `width` times the hidden units; TombolaError without `narrower`."""
        if self.narrower is None:
            raise TombolaError("this task cannot build a narrower network; give SupervisedTask(narrower=…)")
        return replace(self, model=self.narrower(width))

    @cached_property
    def data_digest(self) -> str:
        """A fingerprint of the data as `digest_of_splits` makes it, and of how it is read where that is not usual."""
        set_aside = "validation" not in self.data and self.validation != SupervisedTask.validation
        steps, target = self.steps_per_epoch, self.target
        how = [f" steps {json.dumps(self._steps, sort_keys=True)}"] if steps is not None else []
        how += [f" target {json.dumps(target)}"] if target is not None else []
        sources = {split: self._to_digest(split) for split in self.data}
        return digest_of_splits(sources) + (f" without {self.validation:g}" if set_aside else "") + "".join(how)

    def _to_digest(self, split: Any) -> Any:
        """The split's data as the digest reads them."""
        source = self.data[split]
        part = read_split(source, split, self.target)
        if isinstance(part, InBatches):
            return source if is_indexed(source) else self.batches(split, 0, 0)
        return source

    @cached_property
    def _parts(self) -> dict[str, Part]:
        """What the splits are; what is in memory as tensors."""
        parts = {split: read_split(source, split, self.target) for split, source in self.data.items()}
        parts = {split: self._as_tensors(split, part) for split, part in parts.items()}
        if "validation" not in parts:
            parts["train"], parts["validation"] = self._set_aside(parts["train"])
        return parts

    def _as_tensors(self, split: str, part: Part) -> Part:
        if not isinstance(part, InMemory):
            return part
        tensors = part.tensors(self._is_double)
        check_usable(split, tensors, picked=True)
        _check_lengths(split, tensors)
        return InMemory(*tensors)

    def _set_aside(self, part: Part) -> tuple[Part, Part]:
        """What stays for training, and what is set aside for validation."""
        if isinstance(part, Samples):
            numbers = split_off(len(part.dataset), self.validation)
            rest, aside = (Samples(Subset(part.dataset, own.tolist())) for own in numbers)
            return rest, aside
        assert isinstance(part, InMemory)
        numbers = split_off(samples_in(part.targets) or 0, self.validation)
        rest, aside = (InMemory(pick(part.inputs, own), pick(part.targets, own)) for own in numbers)
        return rest, aside

    def _is_double(self) -> bool:
        return self._double

    @cached_property
    def _double(self) -> bool:
        """Whether the network computes in float64."""
        with own_randomness(torch.device("cpu"), 0):
            return any(parameter.dtype == torch.float64 for parameter in self.model().parameters())

    @property
    def _steps(self) -> Mapping[str, int]:
        steps = self.steps_per_epoch
        return steps if isinstance(steps, Mapping) else {} if steps is None else {"train": steps}

    def _check_steps(self, parts: Mapping[str, Part]) -> None:
        for split, steps in self._steps.items():
            if split not in parts:
                raise TombolaError(f"steps_per_epoch names '{split}', but the data has {', '.join(parts)}")
            if not isinstance(steps, int) or steps < 1:
                raise TombolaError(f"steps_per_epoch is {steps!r}; give a whole number of batches, at least 1")
            if not isinstance(parts[split], InBatches):
                raise TombolaError(
                    f"the data of '{split}' are samples, from which the recipe's batches are made; leave out "
                    "steps_per_epoch, or give batches"
                )
        train = parts["train"]
        if not isinstance(train, InBatches):
            return
        length = length_or_none(train.batches(self.recipe.batch, self.recipe.drop_last))
        steps = self._steps.get("train")
        if length is None and steps is None:
            raise TombolaError(
                "the training batches have no length; say how many make an epoch, as "
                "SupervisedTask(steps_per_epoch=100)"
            )
        if length is not None and steps is not None and steps > length:
            raise TombolaError(
                f"steps_per_epoch is {steps}, but the training data has {length} batches; give at most that"
            )

    def __getstate__(self) -> dict[str, Any]:
        # Without what is worked out from the fields: it would double the data in every pickle.
        return {key: value for key, value in self.__dict__.items() if key not in ("_parts", "_double", "data_digest")}


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


def _measure(slot: str, measure: Any, registry: Registry[Any]) -> Any:
    """A loss or metric that is given, or named; TombolaError for what is neither."""
    if isinstance(measure, str):
        return registry[measure]
    if isinstance(measure, type) or not callable(measure):
        what = f"the class {measure.__name__}" if isinstance(measure, type) else f"a {type(measure).__name__}"
        fix = f"{measure.__name__}(…)" if isinstance(measure, type) else f"one of {', '.join(registry)}"
        raise TombolaError(f"the task's {slot} is {what}; give {fix}, or a function of outputs and targets")
    return measure


def _check_lengths(split: str, pair: tuple[Any, Any]) -> None:
    """TombolaError if the tensors of one split hold different numbers of samples."""
    counts = [tensor.shape[0] if tensor.ndim else None for part in pair for tensor in tensors_in(part)]
    if (len(set(counts)) > 1 or None in counts) and not any(isinstance(part, PackedSequence) for part in pair):
        given = " and ".join("no" if count is None else f"{count:,}" for count in dict.fromkeys(counts))
        raise TombolaError(
            f"the tensors of '{split}' hold {given} samples; give inputs and targets of the same samples, samples first"
        )
