"""The runs of subjects over seeds: a number fixed before, or more and more until each verdict is decided."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tombola.errors import TombolaError
from tombola.evidence import ONE_LOOK, EachSeed, Looks, Measure, Verdict, budget_gap, ended, judge
from tombola.evidence.looks import FIRST
from tombola.methods import Method
from tombola.robust import Robustness
from tombola.studies.execution import execute, search_all
from tombola.studies.executor import Engine
from tombola.studies.measures import measure_of, to_measure, value_of
from tombola.studies.prepared import found
from tombola.studies.result import Result
from tombola.studies.spec import RunSpec
from tombola.tickets import Ticket
from tombola.training import Task

UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
"""What a budget may be counted in, in seconds."""


@dataclass(frozen=True)
class Plan:
    """What is compared with what, and how it is decided.

    Args:
        task: what is learnt.
        controls: what each ticket must beat.
        margin: a smaller difference counts as none; the measure's own if None.
        measure: what the task's metric is; found out from the task if None.
        also: further measures.
        looks: how often one looks.
        robustness: how trained networks are tried beyond the test split.
    """

    task: Task
    controls: tuple[str, ...]
    margin: float | None = None
    measure: Measure | None = None
    also: tuple[Measure, ...] = ()
    looks: Looks = ONE_LOOK
    robustness: Robustness | None = None


class Rows:
    """The results of one study: of each subject, each arm's by seed."""

    def __init__(self, plan: Plan, subjects: Sequence[tuple[str, Ticket | Method]], engine: Engine) -> None:
        self.plan, self.subjects, self.engine = plan, tuple(subjects), engine
        self.specs: dict[str, list[dict[str, RunSpec]]] = {label: [] for label, _ in subjects}
        self._results: dict[tuple[object, ...], Result] = {}

    def run(self, labels: Sequence[str], seeds: int) -> None:
        """Carry out the runs of some subjects up to a number of seeds."""
        new: list[RunSpec] = []
        tickets = self._tickets(labels, seeds)
        for label, subject in self.subjects:
            if label in labels:
                rows = self.specs[label]
                rows += [self._arms(label, subject, seed, tickets) for seed in range(len(rows), seeds)]
                new += [spec for row in rows for spec in row.values()]
        unique = {key: spec for spec in new if (key := _key(spec)) not in self._results}
        made = execute(list(unique.values()), self.engine.store, self.engine.executor)
        self._results |= dict(zip(unique, made, strict=True))

    @property
    def results(self) -> tuple[Result, ...]:
        """Every run once; a method that has two names has its runs once, and a row by each."""
        named = {
            (spec.method, _key(spec)): self._of(spec)
            for rows in self.specs.values()
            for row in rows
            for spec in row.values()
        }
        return tuple(named.values())

    def arms(self, label: str) -> dict[str, list[Result]]:
        """A subject's results by arm, in the order of the seeds."""
        rows = self.specs[label]
        return {name: [self._of(row[name]) for row in rows] for name in rows[0]}

    def seconds(self, label: str) -> float:
        """What a seed of a subject took, mean over seeds: its search, and the training of all its arms."""
        arms = [result for arm in self.arms(label).values() for result in arm]
        spent = [ledger.get("seconds", 0.0) for result in arms for ledger in (result.search, result.training)]
        return math.fsum(spent) / len(self.specs[label])

    def verdict(self, label: str) -> Verdict:
        """The verdict on a subject, from all its seeds."""
        arms, plan = self.arms(label), self.plan
        metrics = {name: [result.metric for result in arm] for name, arm in arms.items()}
        measure = plan.measure or measure_of(plan.task, [value for arm in metrics.values() for value in arm])
        first = arms["ticket"][0]
        also = {
            kind: (
                [value_of(result, kind.name) for result in arms["ticket"]],
                [value_of(result, kind.name) for result in arms["dense"]],
            )
            for kind in plan.also
        }
        return judge(
            first.method,
            first.density,
            metrics,
            range(len(self.specs[label])),
            plan.margin,
            tuple(dict.fromkeys(layer for result in arms["ticket"] for layer in result.collapsed)),
            measure=measure,
            also=also,
            looks=plan.looks,
            seconds=self.seconds(label),
        )

    def _tickets(self, labels: Sequence[str], seeds: int) -> dict[tuple[str, int], Ticket]:
        """The tickets of what has no runs yet, searched wherever the engine carries out work."""
        asked = [
            (label, RunSpec(self.plan.task, subject, seed=seed, label=label))
            for label, subject in self.subjects
            if label in labels and not isinstance(subject, Ticket)
            for seed in range(len(self.specs[label]), seeds)
        ]
        searches = search_all([spec for _, spec in asked], self.engine)
        return {(label, spec.seed): found(run) for (label, spec), run in zip(asked, searches, strict=True)}

    def _arms(
        self, label: str, subject: Ticket | Method, seed: int, tickets: Mapping[tuple[str, int], Ticket]
    ) -> dict[str, RunSpec]:
        """The runs of one subject and seed by arm: the ticket, each control, and dense for as long as they train."""
        plan = self.plan
        if isinstance(subject, Ticket):
            ticket, init = subject, subject.provenance.seed
        else:
            ticket, init = tickets[label, seed], None
        own = RunSpec(
            plan.task,
            subject,
            seed=seed,
            label=label,
            robustness=plan.robustness,
            measures=to_measure([measure.name for measure in plan.also]),
        )
        dense = replace(own, subject=None, label=None, init_seed=init, extra_epochs=budget_gap(ticket, plan.task))
        return {"ticket": own} | {name: replace(own, control=name) for name in plan.controls} | {"dense": dense}

    def _of(self, spec: RunSpec) -> Result:
        return replace(self._results[_key(spec)], method=spec.method)


def fixed(rows: Rows, seeds: int) -> tuple[Verdict, ...]:
    """The verdicts after a number of seeds that was fixed before."""
    labels = [label for label, _ in rows.subjects]
    rows.run(labels, seeds)
    return tuple(map(rows.verdict, labels))


def until_decided(rows: Rows, looks: EachSeed, budget: float | None) -> tuple[Verdict, ...]:
    """Run seed after seed, each verdict until it is decided, until more seeds are futile, or until nothing is left.

    Runs that the store holds already are looked at in the order of their seeds, as if they had been made now: so the
    error holds over all looks, whatever ran before.

    Args:
        rows: the subjects; their plan has the same looks.
        looks: after each seed up to the most.
        budget: seconds; a seed that would go beyond is not begun. None for no limit.
    """
    began, open_ones = time.monotonic(), [label for label, _ in rows.subjects]
    verdicts: dict[str, Verdict] = {}
    count = (
        FIRST if budget is None else 1
    )  # fewer than the first look has decide nothing, but may be all there is time for
    while open_ones:
        before = time.monotonic()
        rows.run(open_ones, count)
        took = time.monotonic() - before
        for label in open_ones:
            verdict = rows.verdict(label)
            futile = verdict.more is not None and verdict.more.futile
            verdicts[label] = ended(verdict, "most" if count == looks.most else "futile" if futile else "")
        # What was on record took no time now: the next seed may well take what it took when it was made.
        next_one = max(took, math.fsum(map(rows.seconds, open_ones)) if took < 1 else 0.0)
        open_ones = [label for label in open_ones if not verdicts[label].ended]
        if budget is not None and open_ones and time.monotonic() - began + next_one > budget:
            verdicts |= {label: ended(verdicts[label], "budget") for label in open_ones}
            break
        count += 1
    return tuple(verdicts[label] for label, _ in rows.subjects)


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
