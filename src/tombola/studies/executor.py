"""Executors: where the pieces of a study are carried out, and how many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch

from tombola.evidence import control_identity
from tombola.studies.spec import RunSpec, conditions, task_settings
from tombola.training import Bars, Meter, Task, identity, with_recipe

Done = TypeVar("Done")


class Tasks:
    """The tasks and subjects of a study: the precision that `auto` comes to, and what each is, worked out once."""

    def __init__(self) -> None:
        self._subjects: dict[int, tuple[Any, Any]] = {}
        self._resolved: dict[int, tuple[Task, Task]] = {}
        self._settings: dict[tuple[int, int], tuple[Task, dict[str, Any]]] = {}

    def __reduce__(self) -> tuple[type[Tasks], tuple[()]]:
        return Tasks, ()  # elsewhere the tasks are other objects, whose ids may be those of any of these

    def known(self, spec: RunSpec, device: torch.device) -> tuple[RunSpec, dict[str, Any]]:
        """The specification with the precision that its recipe comes to on the device, and what the run is, as JSON.

        That is all that decides what it comes to; beside it what it is called and its conditions. A subject is what it
        is when it is first looked at: a score of one's own may keep notes of what it has scored.
        """
        task, subject, seed = spec.task, spec.subject, spec.seed
        if task.recipe.precision == "auto":
            if id(task) not in self._resolved:
                recipe = replace(task.recipe, precision=task.recipe.resolved_precision(device))
                self._resolved[id(task)] = task, with_recipe(task, recipe)
            task = self._resolved[id(task)][1]
            spec = replace(spec, task=task)
        if (id(task), seed) not in self._settings:
            self._settings[id(task), seed] = task, task_settings(task, seed, device)
        if id(subject) not in self._subjects:
            self._subjects[id(subject)] = subject, identity(subject)
        decides = {
            "subject": self._subjects[id(subject)][1],
            "control": control_identity(spec.control),
            "seed": seed,
            "init_seed": spec.init_seed,
            "extra_epochs": spec.extra_epochs,
            "lr": spec.lr,
            "robustness": identity(spec.robustness),
        }
        return spec, decides | {"label": spec.method, **self._settings[id(task), seed][1], **conditions(device)}


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

    def map(self, work: Callable[..., Done], *items: Sequence[Any]) -> Iterator[tuple[int, Done]]:
        """What the work makes of the first of each sequence, of the second …, with the place, as it is finished."""
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

    def map(self, work: Callable[..., Done], *items: Sequence[Any]) -> Iterator[tuple[int, Done]]:
        yield from enumerate(map(work, *items))


@dataclass(frozen=True)
class Engine:
    """Where results are kept, and what carries runs out.

    Args:
        store: a `Store`.
        executor: an `Executor`; one run after another if none is given.
    """

    store: Any
    executor: Executor = field(default_factory=Serial)
