"""What a study compares and how it is decided: the runs of one seed by arm, and the verdict on what they came to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tombola.evidence import (
    MANDATORY,
    ONE_LOOK,
    Better,
    Looks,
    Measure,
    Verdict,
    budget_gap,
    control_kind,
    judge,
    measure_of,
)
from tombola.methods import Method
from tombola.registry import CONTROLS
from tombola.robust import Robustness
from tombola.studies.measures import to_measure, value_of
from tombola.studies.result import Result
from tombola.studies.spec import RunSpec
from tombola.tickets import Ticket
from tombola.training import Task

Arms = dict[str, RunSpec]
"""The runs of one subject and seed, by arm."""


@dataclass(frozen=True)
class Plan:
    """What is compared with what, and how it is decided.

    Args:
        task: what is learnt.
        controls: what each ticket must beat.
        margin: a smaller difference counts as none; the measure's own if None.
        measure: what the task's metric is, or which of its values are better; found out from the task if None.
        also: further measures.
        looks: how often one looks.
        robustness: how trained networks are tried beyond the test split, if at all.

    Raises:
        TombolaError: there is no control of such a name.
    """

    task: Task
    controls: tuple[str, ...] = MANDATORY
    margin: float | None = None
    measure: Measure | Better | None = None
    also: tuple[Measure, ...] = ()
    looks: Looks = ONE_LOOK
    robustness: Robustness | None = None

    def __post_init__(self) -> None:
        for control in self.controls:
            CONTROLS.entry(control_kind(control))

    def arms(self, label: str, subject: Ticket | Method, ticket: Ticket, seed: int) -> Arms:
        """The runs of one seed by arm: the ticket, each control, and dense for as long as they train.

        Args:
            label: what the subject is called.
            subject: what is judged: the ticket itself, or the method that found it.
            ticket: what trains.
            seed: of the runs.
        """
        further = to_measure([measure.name for measure in self.also])
        own = RunSpec(self.task, subject, seed=seed, label=label, robustness=self.robustness, measures=further)
        init = subject.provenance.seed if isinstance(subject, Ticket) else None
        gap = budget_gap(ticket, self.task)
        dense = replace(own, subject=None, label=None, init_seed=init, extra_epochs=gap)
        return {"ticket": own} | {name: replace(own, control=name) for name in self.controls} | {"dense": dense}

    def verdict(self, arms: Mapping[str, Sequence[Result]], seeds: Sequence[int]) -> Verdict:
        """The verdict on a subject.

        Args:
            arms: each arm's results, in the order of the seeds.
            seeds: that ran.
        """
        metrics = {name: [result.metric for result in arm] for name, arm in arms.items()}
        tickets = arms["ticket"]
        also = {kind: (_values(tickets, kind), _values(arms["dense"], kind)) for kind in self.also}
        return judge(
            tickets[0].method,
            tickets[0].density,
            metrics,
            seeds,
            self.margin,
            tuple(dict.fromkeys(layer for result in tickets for layer in result.collapsed)),
            measure=measure_of(self.task, [value for arm in metrics.values() for value in arm], self.measure),
            also=also,
            looks=self.looks,
            seconds=seconds_a_seed(arms),
        )


def _values(results: Sequence[Result], measure: Measure) -> list[float]:
    return [value_of(result, measure.name) for result in results]


def seconds_a_seed(arms: Mapping[str, Sequence[Result]]) -> float:
    """What a seed of a subject took, mean over seeds: its search, and the training of all its arms."""
    results = [result for arm in arms.values() for result in arm]
    spent = [ledger.get("seconds", 0.0) for result in results for ledger in (result.search, result.training)]
    return math.fsum(spent) / len(arms["ticket"])
