"""A search under way: groups of runs trained together, what they came to on disk, and the time that is left."""

from __future__ import annotations

import math
import re
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
"""How many runs make a group: what a kill loses, and how late a search sees what it found."""

ENDS = {"begin": 0.3, "widths": 0.45, "weights": 0.9, "rates": 1.0}
"""By what share of the budget each part of a search must have ended."""

Wanted = Callable[[int, float], bool]
"""Whether a structure of this size is still worth a run, given the size of the best one so far."""


@dataclass(frozen=True)
class Search:
    """What is sought, and how long.

    accuracy: to be reached, on all points. lrs, schedules: each structure is trained at all of them, `seeds` times.
    budget: seconds after which nothing new is begun. init: the seed of one initialisation for all runs; their own if
    None.
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


def seconds_of(budget: str) -> float:
    """A time as typed, in seconds.

    Examples:
        >>> seconds_of("90s"), seconds_of("5min"), seconds_of("2h"), seconds_of("none")
        (90.0, 300.0, 7200.0, inf)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", budget)
    if budget != "none" and found is None:
        raise TombolaError(f"'{budget}' is no time; give one as 90s, 5min or 2h, or none")
    return math.inf if found is None else float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]


@contextmanager
def searching(search: Search, engine: Engine, train: Trainer | None = None) -> Generator[SearchState]:
    """A search whose records nobody else writes.

    train: what trains a group, here and now; all of a group together and a group a core if None.
    """
    tried = settings(search.lrs, search.schedules)
    known = {"search": "sparsest", "settings": [setting.name for setting in tried], "init": search.init}
    known |= task_settings(spiral_task((16, 16, 16), search.recipe), 0, engine.executor.device)
    folder = engine.store.folder("sparsest", known)
    with folder.held():
        folder.begin(known, anew=engine.store.renews(folder))
        yield SearchState(search, tried, engine, Records(folder.path / "tried.jsonl", Row), train)


@dataclass
class SearchState:
    """The state of one search."""

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
        """Try structures in their order, once a round for each of the search's seeds, for as long as time is left.

        below: the size that counts as the best one before any of these reaches the accuracy. seeds: another number.
        """
        named = {own.name: own.size for own in structures}
        known = [
            named[row.structure] for row in self.records.rows.values() if row.structure in named and self._hits(row)
        ]
        self.smallest = min([below, *known])
        rounds = seeds or self.search.seeds
        cores = 1 if self.train else cores_for(self.engine.executor.device)
        run = Run(device=self.engine.executor.device, bars=self.engine.executor.bars if cores == 1 else None)
        work = partial(_carried_out, search=self.search, train=self.train or partial(train_together, run=run))
        with self.engine.executor.bars.track(part, rounds * len(structures)) as tick:
            for group, rows in on_cores(cores, work, self._groups(part, structures, wanted, rounds)):
                self.records.add(rows)
                self.runs += len(rows) * len(self.tried)
                self.smallest = min([self.smallest, *(named[row.structure] for row in rows if self._hits(row))])
                tick(f"the smallest so far has {self.smallest:g}", group.passed)

    def _groups(self, part: str, structures: Sequence[Structure], wanted: Wanted, rounds: int) -> Iterator[Group]:
        """What is still to be tried, in groups, each as what was found until then has it."""
        until = self.started + ENDS[part] * self.search.budget
        self.ended[part] = False
        begun, chosen = 0, []
        for index, (seed, structure) in enumerate(product(range(rounds), structures), start=1):
            if wanted(structure.size, self.smallest) and not self._done(structure, seed):
                chosen.append((structure, seed))
            if chosen and (len(chosen) * len(self.tried) >= TOGETHER or index == rounds * len(structures)):
                if time.monotonic() > until:
                    return
                yield Group(tuple(chosen), index - begun)
                begun, chosen = index, []
        self.ended[part] = True

    def rows(self, rounds: Mapping[Structure, int] | None = None) -> list[Row]:
        """What is known of every structure that was ever tried; rounds: only so many of each of these."""
        known = list(self.records.rows.values())
        if rounds is None:
            return known
        named = {own.name: count for own, count in rounds.items()}
        return [row for row in known if row.seed < named.get(row.structure, 0)]

    def best(self, rows: Iterable[Row]) -> FoundNetwork | None:
        """The smallest network that reached the accuracy, among equals the most accurate."""
        found = [
            FoundNetwork(Structure.parse(row.structure), max(row.accuracies), *self._which(row), row.values)
            for row in rows
            if row.values is not None and self._hits(row)
        ]
        return min(found, key=lambda own: (own.structure.size, -own.accuracy), default=None)

    def result(self, rows: Sequence[Row], dense: FoundNetwork | None, found: FoundNetwork | None) -> SparsestNetwork:
        """What was tried, and the answer."""
        warn_of_stale([row.source for row in rows])
        accuracies: dict[str, list[float]] = {}
        for row in sorted(rows, key=lambda own: own.seed):
            accuracies.setdefault(row.structure, []).extend(row.accuracies)
        tried = [TriedStructure(Structure.parse(name), tuple(own)) for name, own in accuracies.items()]
        tried.sort(key=lambda own: (own.structure.size, own.structure.name))
        seconds = time.monotonic() - self.started
        return SparsestNetwork(self.search.accuracy, found, dense, tuple(tried), self.ended, self.runs, seconds)

    def _hits(self, row: Row) -> bool:
        return row.values is not None and max(row.accuracies) >= self.search.accuracy

    def _done(self, structure: Structure, seed: int) -> bool:
        row = self.records.rows.get((structure.name, seed))
        # A search for a higher accuracy keeps the values of fewer networks.
        return row is not None and (max(row.accuracies) < self.search.accuracy or row.values is not None)

    def _which(self, row: Row) -> tuple[int, Setting]:
        """Seed and setting of the best network of a row."""
        place = row.accuracies.index(max(row.accuracies))
        return row.seed * len(self.tried) + place, self.tried[place]


@dataclass(frozen=True)
class Group:
    """Structures with the round of each, trained together; passed: how many of the part's have been seen to by then."""

    chosen: tuple[tuple[Structure, int], ...]
    passed: int


def _carried_out(group: Group, search: Search, train: Trainer) -> tuple[Group, list[Row]]:
    """Train a group; each structure's accuracies, and the values of its best network if that has learned it."""
    tried = settings(search.lrs, search.schedules)
    widths = inside([structure for structure, _ in group.chosen])
    networks = [
        network for structure, seed in group.chosen for network in members(structure, widths, seed, tried, search.init)
    ]
    trained = train(spiral_task(widths, search.recipe), networks)
    rows = []
    for place, (structure, seed) in enumerate(group.chosen):
        own = trained[place * len(tried) : (place + 1) * len(tried)]
        best = max(own, key=lambda each: each.metric)
        values = values_of(best, structure) if best.metric >= search.accuracy else None
        rows.append(Row(structure.name, seed, [each.metric for each in own], values, source_digest()))
    return group, rows
