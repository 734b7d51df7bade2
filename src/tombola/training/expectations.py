"""What losses and metrics expect of outputs and targets, and what to give where these do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.registry import LOSSES, METRICS, Entry
from tombola.training.losses import check_classes

IGNORED = -100
"""The target that torch's losses leave out by default."""


@dataclass(frozen=True)
class Expectation:
    """What one kind of losses and metrics expects.

    Args:
        of_targets: in words.
        fits: whether shapes and types of outputs and targets fit.
        classes: the axis of the outputs that holds classes; None where targets are no class numbers.
        binary: whether targets are 0 or 1.
    """

    of_targets: str
    fits: Callable[[Tensor, Tensor], bool]
    classes: int | None = None
    binary: bool = False

    def check_values(self, outputs: Tensor, targets: Tensor, ignored: int | None, place: str) -> None:
        """Check the targets' values, of one batch or of a whole split.

        Args:
            outputs: of any batch; how many classes there are is read from them.
            targets: fit already.
            ignored: the target that is left out, if there is one.
            place: whose targets these are, for the error.

        Raises:
            TombolaError: a target is none that there can be.
        """
        if not targets.numel():  # of a split that is empty, which says that there is none
            return
        if self.classes is not None:
            counted = targets if ignored is None else targets[targets != ignored]
            if not counted.numel():
                raise TombolaError(f"{place} are all {ignored}, which is left out; give some that count")
            try:
                check_classes(counted.long(), outputs.shape[self.classes])
            except TombolaError as error:
                skip = "" if self.classes == -1 and outputs.ndim == 2 else ", or leave targets out by ignore_index="
                raise TombolaError(f"among {place} {error}{skip}") from error
        if self.binary and not bool(((targets == 0) | (targets == 1)).all()):
            low, high = (value.item() for value in targets.aminmax())
            raise TombolaError(f"{place} are numbers from {low:g} to {high:g}, where 0 or 1 are expected; give those")


def _are_numbers(tensor: Tensor) -> bool:
    return not (tensor.is_complex() or tensor.dtype == torch.bool)


def _are_class_numbers(targets: Tensor) -> bool:
    return not (targets.is_floating_point() or targets.is_complex())


def _of_classes(outputs: Tensor, targets: Tensor, axis: int) -> bool:
    shape = list(outputs.shape)
    return len(shape) > 1 and shape.pop(axis) > 1 and list(targets.shape) == shape and _are_class_numbers(targets)


EXPECTATIONS: Mapping[str, Expectation] = {
    "positions": Expectation(
        "a class number a position, of the outputs' shape without its axis 1, the classes",
        lambda outputs, targets: outputs.ndim > 2 and _of_classes(outputs, targets, 1),
        classes=1,
    ),
    "tokens": Expectation(
        "token numbers, of the outputs' shape (samples, length, vocabulary) without its last axis",
        lambda outputs, targets: outputs.ndim == 3 and _of_classes(outputs, targets, -1),
        classes=-1,
    ),
    "classes": Expectation(
        "class numbers, of the outputs' shape without its last axis, the classes",
        lambda outputs, targets: _of_classes(outputs, targets, -1),
        classes=-1,
    ),
    "binary": Expectation(
        "0 or 1 a sample, of shape (samples,), and one output a sample",
        lambda outputs, targets: (
            targets.ndim == 1 and outputs.shape in (targets.shape, (*targets.shape, 1)) and not targets.is_complex()
        ),
        binary=True,
    ),
    "labels": Expectation(
        "0 or 1 for each output, of the outputs' shape",
        lambda outputs, targets: targets.ndim > 1 and targets.shape == outputs.shape and not targets.is_complex(),
        binary=True,
    ),
    "numbers": Expectation(
        "numbers of the outputs' shape",
        lambda outputs, targets: targets.shape == outputs.shape and _are_numbers(targets) and _are_numbers(outputs),
    ),
}
"""By the word that an entry's `needs` is; the narrower come first, since they are what is offered."""

REPAIRS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "targets.long()": lambda targets: targets.long(),
    "targets.squeeze(-1)": lambda targets: targets.squeeze(-1),
    "targets.squeeze(-1).long()": lambda targets: targets.squeeze(-1).long(),
    "targets.squeeze(1)": lambda targets: targets.squeeze(1) if targets.ndim > 1 else targets,
    "targets.squeeze(1).long()": lambda targets: (targets.squeeze(1) if targets.ndim > 1 else targets).long(),
    "targets.unsqueeze(-1)": lambda targets: targets.unsqueeze(-1),
    "targets.unsqueeze(1)": lambda targets: targets.unsqueeze(1),
    "targets.float()": lambda targets: targets.float(),
    "targets.unsqueeze(-1).float()": lambda targets: targets.unsqueeze(-1).float(),
}
"""What to do with targets so that they fit."""


def entry_of(slot: str, measure: Any) -> Entry | None:
    """The entry of a loss or metric that Tombola brings, by the place of its function or class.

    Args:
        slot: "loss" or "metric".
        measure: the loss or metric.
    """
    target = measure if hasattr(measure, "__qualname__") else type(measure)
    where = f"{getattr(target, '__module__', '')}:{getattr(target, '__qualname__', '')}"
    registry = LOSSES if slot == "loss" else METRICS
    own = registry.entries.values()
    return next((e for e in own if e.where == where), None)


def expectation_of(slot: str, measure: Any) -> Expectation | None:
    """What a loss or metric expects; None where nothing is known of it."""
    entry = entry_of(slot, measure)
    return None if entry is None else EXPECTATIONS.get(entry.needs)


def check_fits(slot: str, name: str, expected: Expectation, outputs: Any, targets: Any) -> None:
    """Check shapes and types of a batch's outputs and targets.

    Args:
        slot: "loss" or "metric".
        name: what the loss or metric is called.
        expected: what it expects.
        outputs: the network's.
        targets: the batch's.

    Raises:
        TombolaError: they do not fit; it says what to give.
    """
    for what, value in (("the network's outputs", outputs), ("the targets", targets)):
        if not isinstance(value, Tensor):
            fix = "forward=lambda model, inputs: …, which takes the tensor out" if value is outputs else "a tensor"
            raise TombolaError(
                f"the {slot} '{name}' expects tensors, but {what} are a {type(value).__name__}; give {fix}, or {slot}= "
                "a function of outputs and targets"
            )
    if not expected.fits(outputs, targets):
        raise misfit(slot, name, expected, outputs, targets)


def misfit(slot: str, name: str, expected: Expectation, outputs: Tensor, targets: Tensor) -> TombolaError:
    """The sentence for outputs and targets that do not fit, with the first thing that would.

    Args:
        slot: "loss" or "metric".
        name: what the loss or metric is called.
        expected: what it expects.
        outputs: the network's.
        targets: the batch's.
    """
    offers = [*_repairs(expected, outputs, targets), *_others(slot, outputs, targets)]
    ways = offers if slot == "loss" else offers[::-1]
    ways = [*list(dict.fromkeys(ways))[:2], f"{slot}= a function of outputs and targets of your own"]
    return TombolaError(
        f"the {slot} '{name}' expects {expected.of_targets}, but the targets are {_kind_of(targets)} of shape "
        f"{tuple(targets.shape)} and the outputs of shape {tuple(outputs.shape)}; give {', or '.join(ways)}"
    )


def _repairs(expected: Expectation, outputs: Tensor, targets: Tensor) -> Iterator[str]:
    for words, repair in REPAIRS.items():
        repaired = repair(targets)
        if expected.fits(outputs, repaired) and _keeps_values(targets, repaired):
            yield words
            return


def _keeps_values(targets: Tensor, repaired: Tensor) -> bool:
    return bool((targets.flatten() == repaired.flatten()).all())


def _others(slot: str, outputs: Tensor, targets: Tensor) -> Iterator[str]:
    """The first entry whose kind the outputs and targets fit."""
    registry = LOSSES if slot == "loss" else METRICS
    for word, kind in EXPECTATIONS.items():
        if kind.fits(outputs, targets) and _values_fit(kind, outputs, targets):
            names = [entry.name for entry in registry.own.values() if entry.needs == word]
            yield f'{slot}="{names[0]}"'
            return


def _values_fit(kind: Expectation, outputs: Tensor, targets: Tensor) -> bool:
    try:
        kind.check_values(outputs, targets, IGNORED, "targets")
    except TombolaError:
        return False
    return True


def _kind_of(targets: Tensor) -> str:
    return str(targets.dtype).removeprefix("torch.")
