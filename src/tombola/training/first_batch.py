"""One look at a task before anything trains: its splits, its network, and the loss and metric of its first batch."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from numbers import Number
from typing import Any, get_args

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.nested import mapped, tensors_in
from tombola.scores import Batch
from tombola.structure import in_mode
from tombola.tickets import eager
from tombola.training.adversarial_task import adversary_of
from tombola.training.batches import MemoryBatches, move, pick
from tombola.training.expectations import EXPECTATIONS, check_fits, entry_of, expectation_of
from tombola.training.finite_data import unfinite
from tombola.training.identities import fingerprint, identity
from tombola.training.lasting_state import (
    Called,
    buffers_kept,
    leaves_behind,
    targets_watched,
    warn_of_changes,
    warn_of_untrained,
)
from tombola.training.loaders import first_of
from tombola.training.losses import smoothed
from tombola.training.memory_format import trial
from tombola.training.new_networks import check_can_learn, check_new, check_single
from tombola.training.placement import bring_along
from tombola.training.randomness import own_randomness
from tombola.training.recipe import autocast
from tombola.training.supervised_task import SupervisedTask
from tombola.training.task import Split, Task, metric_of, unwrap
from tombola.training.torch_losses import Watched

SPLITS: tuple[Split, ...] = get_args(Split)
WORDS: Mapping[str, str] = {"train": "training", "validation": "validation", "test": "test"}
_looked_at: set[int] = set()


def check_first_batch(task: Task, seed: int = 0, device: torch.device | str = "cpu") -> None:
    """Look at a task once: its splits, its network, its first batch with the outputs, loss and metric of it.

    The network is built for this, and called in evaluation mode; random states stay as they are. What the user's own
    code raises is passed on. A task that was looked at before is not looked at again.

    Args:
        task: what the network learns.
        seed: of the network and of the order of data.
        device: where the network is called.

    Raises:
        TombolaError: training would fail or learn nothing of sense; it names the place and the fix.

    Examples:
        >>> from tombola.testing import toy_task
        >>> check_first_batch(toy_task())
        >>> check_first_batch(toy_task(lambda: nn.Flatten()))
        Traceback (most recent call last):
        tombola.errors.TombolaError: nothing in the network requires a gradient, so that nothing can be trained; ...
    """
    if id(task) in _looked_at:
        return
    device = torch.device(device)
    bring_along(task, device)
    check_can_learn(model := task.build(seed))
    model.to(device)
    bring_along(task, device)
    _Look(task, model, device, seed).check()
    check_new(task.build(seed), model)
    _looked_at.add(id(task))
    weakref.finalize(task, _looked_at.discard, id(task))  # the next object may get its id


class _Look:
    """The first batch of a task, and a network that is called on it.

    Args:
        task: gives batches, forward pass, loss and metric.
        model: its network, on the device.
        device: where it is called.
        seed: of the order of data.
    """

    def __init__(self, task: Task, model: nn.Module, device: torch.device, seed: int) -> None:
        self.task, self.model, self.device, self.seed = task, model, device, seed
        self.metric = metric_of(task)
        self.loss = smoothed(task.loss, task.recipe.label_smoothing)

    def check(self) -> None:
        with own_randomness(self.device, self.seed), torch.enable_grad(), eager(), trial():
            batch = self._first()
            self._check_attack(batch)
            with autocast(self.task.recipe, self.device):
                with in_mode(self.model, "eval"):
                    outputs, classes = self._check_calls(batch)
                self._check_training(batch)
            self._check_whole_targets(outputs, classes)
            self._check_finite_data()

    def _check_attack(self, batch: Batch) -> None:
        """TombolaError if the task is adversarial and its inputs, or targets, cannot be attacked."""
        if (adversary := adversary_of(self.task)) is not None:
            adversary.check_batch(*batch)
            if isinstance(whole := self.task.batches("train", self.seed, 0), MemoryBatches):
                adversary.check_inputs(whole.inputs)

    def _check_calls(self, batch: Batch) -> tuple[Any, tuple[Tensor, int] | None]:
        """Check loss and metric; give the outputs and what `_check_loss` gives, without their graph."""
        outputs = self._outputs(batch)
        targets = move(batch[1], self.device)
        classes = self._check_loss(batch, outputs, targets)
        with torch.no_grad():
            self._check_metric(outputs, targets, classes)
            self._check_repeated("metric", self.metric, lambda: Called({"metric": self.metric(outputs, targets)}, []))
        return mapped((outputs, classes), Tensor.detach)

    def _check_repeated(self, name: str, function: Any, call: Callable[[], Called]) -> tuple[Called, Called]:
        """Call something twice, and warn if it comes to something else, or a call changes what a function holds."""
        with own_randomness(self.device, self.seed):
            first = call()
        before = fingerprint(identity(function))
        with own_randomness(self.device, self.seed):
            second = call()
        changed = (name,) if before != fingerprint(identity(function)) else ()
        warn_of_changes(first.values, second.values, changed)
        return first, second

    def _check_training(self, batch: Batch) -> None:
        """Warn of what lasts from call to call in training mode, and refuse a batch of one where it cannot train."""
        try:
            calls = self._check_repeated("loss", unwrap(self.task, "loss"), lambda: self._trained_on(batch))
        except ValueError as error:
            check_single(batch, self.model, error)
            raise
        warn_of_untrained(*calls, (*self.model.parameters(), *tensors_in(batch)))

    def _trained_on(self, batch: Batch) -> Called:
        """What network and loss give in training; one graph at a time is in memory."""
        with buffers_kept(self.model), in_mode(self.model, "train"):
            outputs = self._outputs(batch)
            loss = self.loss(outputs, move(batch[1], self.device))
        return Called(mapped({"network": outputs, "loss": loss}, Tensor.detach), leaves_behind(loss))

    def _first(self) -> Batch:
        batches = self.task.batches("train", self.seed, 0)
        if isinstance(batches, MemoryBatches) and batches.count < 2:
            raise TombolaError(
                f"the training split holds {batches.count} samples, without those set aside for validation; give at "
                "least two"
            )
        return first_of(batches)

    def _outputs(self, batch: Batch) -> Any:
        inputs = move(batch[0], self.device)
        try:
            return self.task.forward(self.model, inputs)
        except (RuntimeError, TypeError, ValueError) as error:
            if (types := self._other_types(inputs)) is None:
                raise
            raise TombolaError(
                f"the inputs are {types[0]} and the network takes {types[1]} ({str(error).splitlines()[0]}); give them "
                f"as {types[1]}, as inputs.to(torch.{types[1]})"
            ) from error

    def _other_types(self, inputs: Any) -> tuple[str, str] | None:
        """The type of the inputs and the one that the network takes instead, if that is all that is wrong."""
        parameter = next(self.model.parameters())
        given = [tensor.dtype for tensor in tensors_in(inputs)]
        for due in (parameter.dtype, torch.int64):
            other = next((dtype for dtype in given if dtype != due), None)
            if other is None:
                continue
            try:
                with torch.no_grad():
                    self.task.forward(self.model, mapped(inputs, lambda tensor, due=due: tensor.to(due)))
            except Exception:  # then something else is wrong, which the first error says
                continue
            return _name(other), _name(due)
        return None

    def _check_loss(self, batch: Batch, outputs: Any, targets: Any) -> tuple[Tensor, int] | None:
        """Check the loss; give the outputs of which the targets are class numbers, and the target that is left out."""
        value, classes = self._loss_of(outputs, targets)
        self._check_one_number(value, batch)
        if not value.requires_grad:
            # A network may give detached outputs in evaluation mode alone.
            with buffers_kept(self.model), in_mode(self.model, "train"):
                value = self.loss(self._outputs(batch), targets)
            if not value.requires_grad:
                raise TombolaError(
                    "the loss does not depend on the network, so that nothing can be trained; let it come from the "
                    "outputs without detach(), argmax(), item() and torch.no_grad()"
                )
        return classes

    def _loss_of(self, outputs: Any, targets: Any) -> tuple[Any, tuple[Tensor, int] | None]:
        loss, entry = unwrap(self.task, "loss"), entry_of("loss", unwrap(self.task, "loss"))
        expected = EXPECTATIONS.get(entry.needs) if entry and entry.where.startswith("tombola.") else None
        if expected is not None:
            assert entry is not None
            check_fits("loss", entry.name, expected, outputs, targets)
            expected.check_values(outputs, targets, getattr(loss, "ignore_index", None), "the training targets")
        with Watched("loss", outputs, targets) as watched, targets_watched("loss", targets):
            value = self.loss(outputs, targets)
        return value, watched.classes

    def _check_one_number(self, value: Any, batch: Batch) -> None:
        if not isinstance(value, Tensor):
            raise TombolaError(f"the loss gives a {type(value).__name__}, not a tensor of one number; give its mean")
        if value.numel() != 1:
            raise TombolaError(
                f"the loss gives a tensor of shape {tuple(value.shape)} and not one number; give its mean, as with "
                "reduction='mean'"
            )
        if not value.is_floating_point():
            raise TombolaError(
                f"the loss gives a number of type {_name(value.dtype)}; give a float, which has a gradient"
            )
        if not bool(value.isfinite()):
            self._check_finite_data()
            for what, sample, given in unfinite(*batch):
                raise TombolaError(
                    f"the {what} of the first training batch hold {given} at sample {sample}, and its loss is none; "
                    "give numbers there, or leave that sample out"
                )
            raise TombolaError(
                f"the loss of the first batch is {float(value.detach())} before anything is trained; look at what the "
                "network and the loss make of that batch"
            )

    def _check_metric(self, outputs: Any, targets: Any, classes: tuple[Tensor, int] | None) -> None:
        entry = entry_of("metric", self.metric)
        if entry is not None and (expected := expectation_of("metric", self.metric)) is not None:
            check_fits("metric", entry.name, expected, outputs, targets)
            if expected.classes == -1 and classes is not None and classes[0] is outputs and outputs.ndim > 2:
                raise TombolaError(
                    f"the loss takes the classes from axis 1 of the outputs, of shape {tuple(outputs.shape)}, and the "
                    f'metric \'{entry.name}\' from the last one; give metric="pixel-accuracy" or "mean-iou"'
                )
            expected.check_values(outputs, targets, getattr(self.metric, "ignore_index", None), "the training targets")
        with Watched("metric", outputs, targets), targets_watched("metric", targets):
            value = self.metric(outputs, targets)
        if not (isinstance(value, Tensor) and value.numel() == 1) and not isinstance(value, Number):
            shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise TombolaError(f"the metric gives {shape} and not one number; give its mean")

    def _check_whole_targets(self, outputs: Any, classes: tuple[Tensor, int] | None) -> None:
        """Check the targets of every split in memory against what loss and metric expect of their values."""
        expected = expectation_of("metric", self.metric)
        ignored = getattr(self.metric, "ignore_index", None)
        for split, memory in self._memory():
            if not isinstance(memory.targets, Tensor):
                continue
            place = f"the {WORDS[split]} targets"
            if classes is not None:
                axis = "positions" if classes[0].ndim > 2 else "classes"
                EXPECTATIONS[axis].check_values(classes[0], memory.targets, classes[1], place)
            if expected is not None:
                expected.check_values(outputs, memory.targets, ignored, place)

    def _memory(self) -> Iterator[tuple[Split, MemoryBatches]]:
        # A task of the user's own may note who reads its test split.
        ready = isinstance(getattr(unwrap(self.task, "batches"), "__self__", None), SupervisedTask)
        for split in SPLITS if ready else SPLITS[:2]:
            batches = self.task.batches(split, self.seed, 0)
            if isinstance(batches, MemoryBatches) and batches.count:
                yield split, batches

    def _check_finite_data(self) -> None:
        """TombolaError where a sample in memory holds NaN or infinity, and neither network nor loss can do with it."""
        for split, memory in self._memory():
            for what, sample, value in unfinite(memory.inputs, memory.targets):
                if not self._bears(memory, sample):
                    raise TombolaError(
                        f"the {WORDS[split]} {what} hold {value} at sample {sample}{self._counted(split)}, and its "
                        "loss is none; give numbers there, or leave that sample out"
                    )

    def _counted(self, split: Split) -> str:
        """How the samples of a split are counted, where that is not as the user gave them."""
        data = getattr(self.task, "data", {})
        set_aside = split != "test" and isinstance(data, Mapping) and "validation" not in data
        return " as it is after some were set aside for validation" * set_aside

    def _bears(self, memory: MemoryBatches, sample: int) -> bool:
        """Whether loss and gradients of a sample are finite, as of a mask that is minus infinity in places."""
        index = torch.tensor([sample, *range(min(memory.count, 2))])
        batch = move((pick(memory.inputs, index), pick(memory.targets, index)), self.device)
        with in_mode(self.model, "eval"), torch.enable_grad():
            value = self.loss(self.task.forward(self.model, batch[0]), batch[1])
            learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(value, learnt, allow_unused=True)
        return bool(value.isfinite()) and all(bool(g.isfinite().all()) for g in gradients if g is not None)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
