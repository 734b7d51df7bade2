"""Adversarial training: a task whose training inputs are attacked before the network learns from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from tombola.errors import TombolaError, unknown
from tombola.training.adversary import NAMED, Adversary, Bound, RobustCheck
from tombola.training.attacks import Attack
from tombola.training.auto_attack import Apgd
from tombola.training.task import Task, TaskWrapper

UNATTACKED = Adversary(Attack(epsilon=0.0), (0.0, 1.0), RobustCheck())
"""In place of the wrapper's property, until a task has its own."""


@dataclass(frozen=True)
class AdversarialTask(TaskWrapper):
    """A task with attacked training inputs, made by `tombola.adversarial`.

    Args:
        task: the task.
        adversary: what attacks its training inputs.
    """

    adversary: Adversary = UNATTACKED

    def __getattr__(self, name: str) -> Any:
        # While it is unpickled there is no `task` yet, and looking it up would come back here without end.
        if name.startswith("__") or name == "task":
            raise AttributeError(name)
        found = getattr(self.task, name)
        return (lambda width: replace(self, task=found(width))) if name == "narrow" else found

    @property
    def labels(self) -> Mapping[str, str]:
        return {**super().labels, **self.adversary.labels}


def adversarial(
    task: Task,
    attack: Attack | Apgd | str = "pgd",
    *,
    data_range: tuple[Bound, Bound] | None = None,
    check: RobustCheck | None = None,
) -> AdversarialTask:
    """Make a task adversarial: whatever trains on it learns from attacked inputs (Madry et al., ICLR 2018).

    It goes wherever a task does: dense networks, tickets, controls and searches train on attacked inputs, and scores
    see them too. Validation and test stay clean; the history has robust accuracy beside it, and verdicts have it as a
    further measure.

    Args:
        task: any task whose inputs are one tensor of floating point numbers.
        attack: `pgd` (10 steps from a random point), `fgsm` (one step of ε) or `fast` (one step from a random point),
            each with ε = 8/255; or an `Attack` or `Apgd` with settings of its own.
        data_range: the lowest and the highest value that inputs can have, as (0, 1); for normalised data on their
            scale, one number or one for each channel.
        check: how robust accuracy is watched, and whether it ends training early.

    Returns:
        The task. It keeps the range of the data and the units of ε, and so does the file of a ticket found on it.

    Raises:
        TombolaError: without a range, or for an attack that does not exist.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> task = tb.adversarial(toy_task(epochs=1), tb.training.Attack(0.01, steps=2), data_range=(-9, 9))
        >>> result = tb.train(task)
        >>> "robust_pgd" in result.history[0], result.cost.samples_backward  # 108 thrice, 12 twenty times in the check
        (True, 564)
    """
    if not isinstance(task, Task):
        raise TombolaError(f"the task is a {type(task).__name__}; give a task, as tb.SupervisedTask(…)")
    if isinstance(attack, str):
        if attack not in NAMED:
            raise unknown("attack", attack, NAMED)
        attack = NAMED[attack]()
    if not isinstance(attack, Attack | Apgd):
        raise TombolaError(f"the attack is a {type(attack).__name__}; give 'pgd', 'fgsm', 'fast' or an Attack")
    if data_range is None:
        raise TombolaError(
            "data_range is missing: an attack must know the lowest and the highest value of the inputs; give it, as "
            "data_range=(0, 1) for pixels from 0 to 1, or each channel's on the scale of normalised data"
        )
    adversary = Adversary(attack, _as_range(data_range), RobustCheck() if check is None else check)
    return AdversarialTask(without_attack(task), adversary)


def adversary_of(task: Task) -> Adversary | None:
    """What attacks a task's training inputs; None if nothing does."""
    return getattr(task, "adversary", None)


def without_attack(task: Task) -> Task:
    """The same task with clean training inputs."""
    if isinstance(task, AdversarialTask):
        return without_attack(task.task)
    if isinstance(task, TaskWrapper) and task.adversary is not None:
        return replace(task, task=without_attack(task.task))
    return task


def with_attack(task: Task, attack: Attack | Apgd) -> Task:
    """The same adversarial task with another attack; a task without one stays as it is."""
    if isinstance(task, AdversarialTask):
        return replace(task, adversary=replace(task.adversary, attack=attack))
    if isinstance(task, TaskWrapper) and task.adversary is not None:
        return replace(task, task=with_attack(task.task, attack))
    return task


def _as_range(given: Any) -> tuple[Bound, Bound]:
    """The range as Python's own numbers."""
    try:
        low, high = (torch.as_tensor(bound, dtype=torch.float64).tolist() for bound in given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TombolaError(
            f"data_range is {given!r}; give the lowest and the highest value of the inputs, as (0, 1)"
        ) from error
    return (tuple(low) if isinstance(low, list) else low), (tuple(high) if isinstance(high, list) else high)
