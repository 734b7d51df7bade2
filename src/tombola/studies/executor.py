"""Executors: they carry out the pieces of a study, here or elsewhere, one or many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch

from tombola.evidence import control_identity
from tombola.studies.spec import RunSpec, conditions, task_settings
from tombola.training import Bars, Meter, Task, chosen_device, identity, with_recipe

Done = TypeVar("Done")


class Tasks:
    """The settings of a study's tasks and subjects, each worked out once."""

    def __init__(self) -> None:
        # By id, since tasks and subjects need not be hashable. Each entry holds its object too, so that it stays alive
        # and no other object gets its id.
        self._subjects: dict[int, tuple[Any, Any]] = {}
        self._resolved: dict[int, tuple[Task, Task]] = {}
        self.memory: dict[int, tuple[Task, int]] = {}
        """The bytes that a run of each task needs."""
        self._settings: dict[tuple[int, int], tuple[Task, dict[str, Any]]] = {}

    def __reduce__(self) -> tuple[type[Tasks], tuple[()]]:
        return Tasks, ()  # in another process the tasks have other ids, which here may be those of other objects

    def known(self, spec: RunSpec, device: torch.device, threads: int | None = None) -> tuple[RunSpec, dict[str, Any]]:
        """Resolve the precision of a run, and describe the run.

        Args:
            spec: the specification of the run.
            device: where it trains, which decides what the precision `auto` is.
            threads: with how many threads; as many as this process has if None.

        Returns:
            The specification with this precision, and the run's settings as JSON: all that decides its outcome, its
            names, and its conditions.
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
        # Described at the first look and never again: a user's score may record what it scores, and so change.
        if id(subject) not in self._subjects:
            self._subjects[id(subject)] = subject, identity(subject)
        decisive = {
            "subject": self._subjects[id(subject)][1],
            "control": control_identity(spec.control),
            "seed": seed,
            "init_seed": spec.init_seed,
            "extra_epochs": spec.extra_epochs,
            "lr": spec.lr,
            "robustness": identity(spec.robustness),
        }
        decisive |= {"measures": list(spec.measures)} if spec.measures else {}
        own = {"label": spec.method, **self._settings[id(task), seed][1]}
        return spec, decisive | own | conditions(device, threads)


class Executor(Protocol):
    """Carries out independent pieces of work; all that it receives can be pickled."""

    @property
    def device(self) -> torch.device:
        """Where networks train; it decides a study's precision."""
        ...

    @property
    def threads(self) -> int:
        """How many threads of the processor a piece of work has."""
        ...

    @property
    def bars(self) -> Bars:
        """What shows progress."""
        ...

    @property
    def meter(self) -> Meter | None:
        """What estimates energy, if anything does."""
        ...

    @property
    def tasks(self) -> Tasks:
        """The settings of the tasks that were described so far."""
        ...

    def map(self, work: Callable[..., Done], *items: Sequence[Any]) -> Iterator[tuple[int, Done]]:
        """Call the work with the first items of the sequences, with the second ones, and so on.

        Args:
            work: what is called.
            items: one sequence for each argument of the work, all of one length.

        Returns:
            (index, result) pairs, each as soon as it is finished.
        """
        ...


@dataclass(frozen=True)
class Serial:
    """Carries out one piece of work after another, in this process.

    Args:
        device: where networks train; CUDA if there is one, else the CPU, if none is given.
        bars: what shows progress.
        meter: estimates energy and carbon of each cost; None for no estimates.
        tasks: the settings of the tasks that were described so far.

    Examples:
        >>> list(Serial().map(pow, [2, 3], [3, 2]))
        [(0, 8), (1, 9)]
    """

    device: torch.device = field(default_factory=chosen_device)
    bars: Bars = Bars()
    meter: Meter | None = None
    tasks: Tasks = field(default_factory=Tasks, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", chosen_device(self.device))  # "cuda" may be given too

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def map(self, work: Callable[..., Done], *items: Sequence[Any]) -> Iterator[tuple[int, Done]]:
        return enumerate(map(work, *items))


@dataclass(frozen=True)
class Engine:
    """A store of results with an executor of runs.

    Args:
        store: a `Store`.
        executor: an `Executor`; by default one run after another, here.
    """

    store: Any
    executor: Executor = field(default_factory=Serial)
