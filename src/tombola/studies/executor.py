"""Executors: where the pieces of a study are carried out, and how many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

from tombola.training import Bars, Meter, Task

Item = TypeVar("Item")
Done = TypeVar("Done")


class Executor(Protocol):
    """Carries out independent pieces of work; all that it is given can be pickled.

    device: where networks train, for which a study's precision is resolved. bars: what shows progress. meter: what
    estimates energy, if anything does. resolved: tasks by their ids, with those that have a precision.
    """

    @property
    def device(self) -> torch.device: ...

    @property
    def bars(self) -> Bars: ...

    @property
    def meter(self) -> Meter | None: ...

    @property
    def resolved(self) -> dict[int, tuple[Task, Task | None]]: ...

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
    resolved: dict[int, tuple[Task, Task | None]] = field(default_factory=dict, repr=False, compare=False)

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
