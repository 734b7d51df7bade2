"""The runs of subjects over seeds: a number fixed before, or more and more until each verdict is decided."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tombola.errors import TombolaError
from tombola.evidence import EachSeed, Looks, Ranking, Verdict, ended
from tombola.evidence.looks import FIRST
from tombola.methods import Method
from tombola.studies.execution import execute, search_all
from tombola.studies.executor import Engine
from tombola.studies.plan import Arms, Plan, seconds_a_seed
from tombola.studies.prepared import found
from tombola.studies.rankings import longer, rankings
from tombola.studies.result import Result
from tombola.studies.spec import RunSpec
from tombola.tickets import Ticket

UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
"""What a budget may be counted in, in seconds."""


class Rows:
    """The results of one study: of each subject, by its place among them, each arm's by seed.

    Args:
        plan: what is compared.
        subjects: what is compared with its controls and dense, each with what it is called; several may be called the
            same and differ in density.
        engine: where results are kept, and what carries runs out.
    """

    def __init__(self, plan: Plan, subjects: Sequence[tuple[str, Ticket | Method]], engine: Engine) -> None:
        self.plan, self.subjects, self.engine = plan, tuple(subjects), engine
        self.specs: list[list[Arms]] = [[] for _ in subjects]
        self._results: dict[tuple[object, ...], Result] = {}

    def run(self, places: Sequence[int], seeds: int) -> None:
        """Carry out the runs of some subjects up to a number of seeds."""
        tickets = self._tickets(places, seeds)
        for place in places:
            rows = self.specs[place]
            rows += [self._arms(place, seed, tickets) for seed in range(len(rows), seeds)]
        self._carry_out([spec for place in places for row in self.specs[place] for spec in row.values()])

    @property
    def results(self) -> tuple[Result, ...]:
        """Every run once; a method that has two names has its runs once, and a row by each."""
        named = {
            (spec.method, _key(spec)): self._of(spec) for rows in self.specs for row in rows for spec in row.values()
        }
        return tuple(named.values())

    def arms(self, place: int) -> dict[str, list[Result]]:
        """A subject's results by arm, in the order of the seeds."""
        rows = self.specs[place]
        return {name: [self._of(row[name]) for row in rows] for name in rows[0]}

    def seconds(self, place: int) -> float:
        """What a seed of a subject took, mean over seeds: its search, and the training of all its arms."""
        return seconds_a_seed(self.arms(place))

    def verdict(self, place: int) -> Verdict:
        """The verdict on a subject, from all its seeds."""
        return self.plan.verdict(self.arms(place), range(len(self.specs[place])))

    def ranked(self, equal_cost: bool) -> tuple[Ranking, ...]:
        """The methods against each other: as they are, and after that at equal cost, where that is asked for."""
        verdicts = list(map(self.verdict, range(len(self.subjects))))
        tickets = [self.arms(place)["ticket"] for place in range(len(self.subjects))]
        made = rankings(verdicts, tickets, self.plan.looks)
        if not (equal_cost and made):
            return made
        rows = [[(row, {name: self._of(spec) for name, spec in row.items()}) for row in own] for own in self.specs]
        trained = longer(rows)
        self._carry_out([spec for own in trained for spec in own.specs])
        at_equal_cost = [own.named(map(self._of, own.specs)) for own in trained]
        return made + rankings(verdicts, at_equal_cost, self.plan.looks, equal_cost=True)

    def _carry_out(self, specs: Sequence[RunSpec]) -> None:
        """Carry out the runs of which there are no results yet, each once."""
        unique = {key: spec for spec in specs if (key := _key(spec)) not in self._results}
        made = execute(list(unique.values()), self.engine.store, self.engine.executor)
        self._results |= dict(zip(unique, made, strict=True))

    def _tickets(self, places: Sequence[int], seeds: int) -> dict[tuple[int, int], Ticket]:
        """The tickets of what has no runs yet, searched wherever the engine carries out work."""
        asked = [
            (place, RunSpec(self.plan.task, subject, seed=seed, label=label))
            for place in places
            for label, subject in [self.subjects[place]]
            if not isinstance(subject, Ticket)
            for seed in range(len(self.specs[place]), seeds)
        ]
        searches = search_all([spec for _, spec in asked], self.engine)
        return {(place, spec.seed): found(run) for (place, spec), run in zip(asked, searches, strict=True)}

    def _arms(self, place: int, seed: int, tickets: Mapping[tuple[int, int], Ticket]) -> Arms:
        """The runs of one subject and seed by arm."""
        label, subject = self.subjects[place]
        ticket = subject if isinstance(subject, Ticket) else tickets[place, seed]
        return self.plan.arms(label, subject, ticket, seed)

    def _of(self, spec: RunSpec) -> Result:
        return replace(self._results[_key(spec)], method=spec.method)


def fixed(rows: Rows, seeds: int) -> tuple[Verdict, ...]:
    """The verdicts after a number of seeds that was fixed before."""
    places = range(len(rows.subjects))
    rows.run(places, seeds)
    return tuple(map(rows.verdict, places))


def until_decided(rows: Rows, looks: EachSeed, budget: float | None) -> tuple[Verdict, ...]:
    """Run seed after seed, each verdict until it is decided, until more seeds are futile, or until nothing is left.

    Runs that the store holds already are looked at in the order of their seeds, as if they had been made now: so the
    error holds over all looks, whatever ran before.

    Args:
        rows: the subjects; their plan has the same looks.
        looks: after each seed up to the most.
        budget: seconds; a seed that would go beyond is not begun. None for no limit.
    """
    began, open_ones = time.monotonic(), list(range(len(rows.subjects)))
    verdicts: dict[int, Verdict] = {}
    count = FIRST if budget is None else 1  # two seeds decide nothing, but may be all that there is time for
    while open_ones:
        before = time.monotonic()
        rows.run(open_ones, count)
        took = time.monotonic() - before
        for place in open_ones:
            verdicts[place] = after_look(rows.verdict(place), looks, count)
        open_ones = [place for place in open_ones if not verdicts[place].ended]
        # What was on record took no time now: the next seed may well take what it took when it was made.
        next_one = took if took > 1 else math.fsum(map(rows.seconds, open_ones))
        if budget is not None and open_ones and time.monotonic() - began + next_one > budget:
            verdicts |= {place: ended(verdicts[place], "budget") for place in open_ones}
            break
        count += 1
    return tuple(verdicts[place] for place in range(len(rows.subjects)))


def after_look(verdict: Verdict, looks: Looks, count: int) -> Verdict:
    """A verdict with why no more seeds run, if none do: it is decided, more are futile, or these were the most.

    Args:
        verdict: after this many seeds.
        looks: how often one looks; after the only look there is nothing to say.
        count: the seeds so far.
    """
    if not isinstance(looks, EachSeed) or count < FIRST:
        return verdict
    futile = verdict.more is not None and verdict.more.futile
    return ended(verdict, "most" if count == looks.most else "futile" if futile else "")


def seconds_of(budget: float | str | None) -> float | None:
    """A budget in seconds.

    Args:
        budget: seconds; or a text with a unit, as "90s", "20m" or "1.5h".

    Raises:
        TombolaError: if it is neither.

    Examples:
        >>> seconds_of("20m"), seconds_of(90)
        (1200.0, 90.0)
    """
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) *(s|m|min|h|)", str(budget).strip())
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise TombolaError(f"the budget is '{budget}'; give a time, as 20m, 1.5h or 90s")
    return seconds


def _key(spec: RunSpec) -> tuple[object, ...]:
    """What tells apart the runs of one study, on one task."""
    return id(spec.subject), spec.control, spec.seed, spec.init_seed, spec.extra_epochs, spec.lr
