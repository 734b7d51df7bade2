"""The state of a search: groups of runs that train together, their results on disk, and the time that is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product

from tombola.errors import TombolaError
from tombola.papers.spiral.search_outcome import FoundNetwork, SparsestNetwork, TriedStructure
from tombola.papers.spiral.search_records import Records, Row
from tombola.papers.spiral.spiral_runs import (
    RECIPE,
    SCHEDULES,
    Schedule,
    Setting,
    Trainer,
    check_recipe,
    inside,
    members,
    settings,
    spiral_task,
    values_of,
)
from tombola.papers.spiral.structures import Structure
from tombola.studies.core_pool import cores_for, on_cores
from tombola.studies.execution import warn_of_stale
from tombola.studies.executor import Engine
from tombola.studies.spec import source_digest, task_settings
from tombola.training import Recipe, Run, train_together

TOGETHER = 240
"""How many runs make a group. A kill loses at most one group, and a search sees its results after each."""

ENDS = {"begin": 0.3, "widths": 0.45, "weights": 0.9, "rates": 1.0}
"""The share of the budget after which each phase of a search begins no more groups."""

Wanted = Callable[[int, float], bool]
"""Whether a structure of this size is still worth a run, given the size of the best one so far."""


@dataclass(frozen=True)
class Search:
    """What to search for, and how long.

    Args:
        accuracy: to reach on all points, above 0.5 and at most 1.
        seeds: how often each structure is trained at each setting.
        budget: seconds after which nothing new is begun.
        lrs: learning rates.
        schedules: each learning rate is tried with each of them.
        init: seed of one initialisation for all runs; None gives each run its own.
        recipe: of the training; its learning rate and schedule stay as they are, as the settings replace them.

    Raises:
        TombolaError: if a value is out of its range, or if there is no setting to try.

    Examples:
        >>> Search(accuracy=0.99, seeds=5, budget=300.0).budget
        300.0
    """

    accuracy: float = 0.95
    seeds: int = 20
    budget: float = math.inf
    lrs: tuple[float, ...] = (0.05, 0.1)
    schedules: tuple[Schedule, ...] = SCHEDULES
    init: int | None = None
    recipe: Recipe = RECIPE

    def __post_init__(self) -> None:
        if not 0.5 < self.accuracy <= 1:
            raise TombolaError(
                f"accuracy is {self.accuracy:g}; give a share above 0.5, which guessing reaches, and at most 1, as 0.95"
            )
        if self.seeds < 1:
            raise TombolaError(f"seeds is {self.seeds}; give at least 1")
        if not self.budget > 0:
            raise TombolaError(f"the budget is {self.budget:g} seconds; give a time above 0, as 5min")
        settings(self.lrs, self.schedules)
        check_recipe(self.recipe)


@contextmanager
def searching(search: Search, engine: Engine, train: Trainer | None = None) -> Generator[SearchState]:
    """Open a search; while it is open, no other process writes its records.

    Args:
        search: what to search for. Searches that differ in seeds, accuracy or budget alone share their records.
        engine: the store, and what carries out the training.
        train: trains a group of networks in this process; None trains one group on each core.
    """
    tried = settings(search.lrs, search.schedules)
    known = {"search": "sparsest", "settings": [setting.name for setting in tried], "init": search.init}
    known |= task_settings(spiral_task((16, 16, 16), search.recipe), 0, engine.executor.device)
    folder = engine.store.folder("sparsest", known)
    with folder.held():
        if engine.store.renews(folder):
            folder.clear()
        folder.begin(known)
        yield SearchState(search, tried, engine, Records(folder.path / "tried.jsonl", Row), train)


@dataclass
class SearchState:
    """The state of one search.

    Args:
        search: what to search for.
        tried: the settings at which each structure is trained.
        engine: the store, and what carries out the training.
        records: what was tried so far, now and before.
        train: trains a group of networks; None for `train_together`, on every core.
        started: when the search began, on the monotonic clock.
        ended: the phases that were begun, and whether each came to its end.
        runs: how many runs were trained.
        smallest: size of the smallest structure that reached the accuracy in this phase.
    """

    search: Search
    tried: Sequence[Setting]
    engine: Engine
    records: Records[Row]
    train: Trainer | None = None
    started: float = field(default_factory=time.monotonic)
    ended: dict[str, bool] = field(default_factory=dict)
    runs: int = 0
    smallest: float = math.inf

    def rounds(
        self,
        part: str,
        structures: Sequence[Structure],
        wanted: Wanted,
        below: float = math.inf,
        seeds: int | None = None,
    ) -> None:
        """Try structures in their order, in one round for each seed, for as long as time is left.

        Args:
            part: name of the phase, a key of `ENDS`.
            structures: what to try.
            wanted: whether a structure of some size is still worth a run.
            below: the size that counts as the smallest until one of these structures reaches the accuracy.
            seeds: how many rounds; None for as many as the search has seeds.
        """
        sizes = {structure.name: structure.size for structure in structures}
        hits = [
            sizes[row.structure] for row in self.records.rows.values() if row.structure in sizes and self._hits(row)
        ]
        self.smallest = min([below, *hits])
        rounds = seeds or self.search.seeds
        cores = 1 if self.train else cores_for(self.engine.executor.device)
        run = Run(device=self.engine.executor.device, bars=self.engine.executor.bars if cores == 1 else None)
        work = partial(_train_group, search=self.search, train=self.train or partial(train_together, run=run))
        with self.engine.executor.bars.track(part, rounds * len(structures)) as tick:
            for group, rows in on_cores(cores, work, self._groups(part, structures, wanted, rounds)):
                self.records.add(rows)
                self.runs += len(rows) * len(self.tried)
                self.smallest = min([self.smallest, *(sizes[row.structure] for row in rows if self._hits(row))])
                tick(f"the smallest so far has {self.smallest:g}", group.passed)

    def _groups(self, part: str, structures: Sequence[Structure], wanted: Wanted, rounds: int) -> Iterator[Group]:
        """What is still to be tried, in groups; what is worth a run follows from the smallest hit at that moment."""
        until = self.started + ENDS[part] * self.search.budget
        self.ended[part] = False
        passed, chosen = 0, []
        for index, (seed, structure) in enumerate(product(range(rounds), structures), start=1):
            if wanted(structure.size, self.smallest) and not self._done(structure, seed):
                chosen.append((structure, seed))
            if chosen and (len(chosen) * len(self.tried) >= TOGETHER or index == rounds * len(structures)):
                if time.monotonic() > until:
                    return
                yield Group(tuple(chosen), index - passed)
                passed, chosen = index, []
        self.ended[part] = True

    def rows(self, rounds: Mapping[Structure, int] | None = None) -> list[Row]:
        """The records of all structures that were ever tried.

        Args:
            rounds: only these structures, and only so many rounds of each.
        """
        records = list(self.records.rows.values())
        if rounds is None:
            return records
        counts = {structure.name: count for structure, count in rounds.items()}
        return [row for row in records if row.seed < counts.get(row.structure, 0)]

    def best(self, rows: Iterable[Row]) -> FoundNetwork | None:
        """The smallest network that reached the accuracy; among equally small ones the most accurate."""
        networks = [
            FoundNetwork(Structure.parse(row.structure), max(row.accuracies), *self._best_run(row), row.values)
            for row in rows
            if row.values is not None and self._hits(row)
        ]
        return min(networks, key=lambda network: (network.structure.size, -network.accuracy), default=None)

    def result(self, rows: Sequence[Row], dense: FoundNetwork | None, found: FoundNetwork | None) -> SparsestNetwork:
        """The outcome of the search, from the records of what was tried and the networks found."""
        warn_of_stale([row.source for row in rows])
        accuracies: dict[str, list[float]] = {}
        for row in sorted(rows, key=lambda row: row.seed):
            accuracies.setdefault(row.structure, []).extend(row.accuracies)
        tried = [TriedStructure(Structure.parse(name), tuple(runs)) for name, runs in accuracies.items()]
        tried.sort(key=lambda entry: (entry.structure.size, entry.structure.name))
        seconds = time.monotonic() - self.started
        return SparsestNetwork(self.search.accuracy, found, dense, tuple(tried), self.ended, self.runs, seconds)

    def _hits(self, row: Row) -> bool:
        return row.values is not None and max(row.accuracies) >= self.search.accuracy

    def _done(self, structure: Structure, seed: int) -> bool:
        row = self.records.rows.get((structure.name, seed))
        # A search for a higher accuracy keeps the values of fewer networks.
        return row is not None and (max(row.accuracies) < self.search.accuracy or row.values is not None)

    def _best_run(self, row: Row) -> tuple[int, Setting]:
        """Seed and setting of the best network of a row."""
        place = row.accuracies.index(max(row.accuracies))
        return row.seed * len(self.tried) + place, self.tried[place]


@dataclass(frozen=True)
class Group:
    """Structures that are trained together.

    Args:
        chosen: each structure with its round.
        passed: how many structures of the phase this group settles, those that needed no run included.
    """

    chosen: tuple[tuple[Structure, int], ...]
    passed: int


def _train_group(group: Group, search: Search, train: Trainer) -> tuple[Group, list[Row]]:
    """Train a group; a row has the values of its structure's best network if this reached the accuracy."""
    tried = settings(search.lrs, search.schedules)
    widths = inside([structure for structure, _ in group.chosen])
    networks = [
        network for structure, seed in group.chosen for network in members(structure, widths, seed, tried, search.init)
    ]
    trained = train(spiral_task(widths, search.recipe), networks)
    rows = []
    for place, (structure, seed) in enumerate(group.chosen):
        runs = trained[place * len(tried) : (place + 1) * len(tried)]
        best = max(runs, key=lambda run: run.metric)
        values = values_of(best, structure) if best.metric >= search.accuracy else None
        rows.append(Row(structure.name, seed, [run.metric for run in runs], values, source_digest()))
    return group, rows
