"""Executors: where the pieces of a study are carried out, and how many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch

from tombola.studies.spec import conditions, task_settings
from tombola.training import Bars, Meter, Task, identity, with_recipe

Item = TypeVar("Item")
Done = TypeVar("Done")


class Tasks:
    """The tasks and subjects of a study: the precision that `auto` comes to, and what each is, worked out once."""

    def __init__(self) -> None:
        self._subjects: dict[int, tuple[Any, Any]] = {}
        self._resolved: dict[int, tuple[Task, Task]] = {}
        self._settings: dict[tuple[int, int], dict[str, Any]] = {}

    def __reduce__(self) -> tuple[type[Tasks], tuple[()]]:
        return Tasks, ()  # elsewhere the tasks are other objects, whose ids may be those of any of these

    def resolved(self, task: Task, device: torch.device) -> Task:
        """The task with the precision that its recipe comes to on the device; the same object for the same task."""
        if task.recipe.precision != "auto":
            return task
        if id(task) not in self._resolved:
            recipe = replace(task.recipe, precision=task.recipe.resolved_precision(device))
            self._resolved[id(task)] = task, with_recipe(task, recipe)
        return self._resolved[id(task)][1]

    def identity(self, subject: Any) -> Any:
        """What a subject is when it is first looked at: a score of one's own may keep notes of what it has scored."""
        if id(subject) not in self._subjects:
            self._subjects[id(subject)] = subject, identity(subject)
        return self._subjects[id(subject)][1]

    def settings(self, task: Task, seed: int, device: torch.device) -> dict[str, Any]:
        """What a task comes to with a seed."""
        key = id(task), seed
        if key not in self._settings:
            self._resolved.setdefault(id(task), (task, task))  # or another task could get its id
            self._settings[key] = task_settings(task, seed, device)
        return {**self._settings[key], **conditions(device)}


class Executor(Protocol):
    """Carries out independent pieces of work; all that it is given can be pickled.

    device: where networks train, for which a study's precision is resolved. bars: what shows progress. meter: what
    estimates energy, if anything does. tasks: what is known of the tasks so far.
    """

    @property
    def device(self) -> torch.device: ...

    @property
    def bars(self) -> Bars: ...

    @property
    def meter(self) -> Meter | None: ...

    @property
    def tasks(self) -> Tasks: ...

    def map(self, work: Callable[[Item], Done], items: Sequence[Item]) -> Iterator[tuple[int, Done]]:
        """What the work makes of each item, with the item's place, as it is finished."""
        ...


@dataclass(frozen=True)
class Serial:
    """One piece after another, in this process.

    Args:
        device: where networks train.
        bars: what shows progress.
        meter: estimates energy and carbon of each cost.
    """

    device: torch.device = torch.device("cpu")
    bars: Bars = Bars()
    meter: Meter | None = None
    tasks: Tasks = field(default_factory=Tasks, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", torch.device(self.device))

    def map(self, work: Callable[[Item], Done], items: Sequence[Item]) -> Iterator[tuple[int, Done]]:
        for place, item in enumerate(items):
            yield place, work(item)


@dataclass(frozen=True)
class Engine:
    """Where results are kept, and what carries runs out.

    Args:
        store: a `Store`.
        executor: an `Executor`; one run after another if none is given.
    """

    store: Any
    executor: Executor = field(default_factory=Serial)
