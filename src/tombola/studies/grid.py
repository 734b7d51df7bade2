"""A grid of runs that is known before anything ran: subjects, controls and seeds on one task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tombola.evidence import MANDATORY, budget_gap, judge
from tombola.methods import Method
from tombola.robust import Robustness
from tombola.studies.comparison import Study
from tombola.studies.measures import measure_of
from tombola.studies.prepared import SEARCH
from tombola.studies.result import Result
from tombola.studies.spec import RunSpec
from tombola.tickets import Ticket
from tombola.training import Task

Arms = dict[str, RunSpec]
"""The runs of one subject and seed, by arm."""


@dataclass(frozen=True)
class Comparison:
    """What is compared, before anything ran.

    Args:
        task: what is learnt.
        subjects: tickets and methods, each with what it is called.
        seeds: of the repetitions.
        controls: what each ticket must beat.
        margin: the difference in the metric that counts as none; the metric's own if None.
        robustness: how all networks are tried beyond the test split, if at all.
    """

    task: Task
    subjects: tuple[tuple[str, Ticket | Method], ...]
    seeds: tuple[int, ...]
    controls: tuple[str, ...] = MANDATORY
    margin: float | None = None
    robustness: Robustness | None = None

    def searches(self) -> list[RunSpec]:
        """What is to be searched before all runs are known: each method with each seed."""
        return [
            RunSpec(self.task, subject, SEARCH, seed, label=label)
            for label, subject in self.subjects
            if not isinstance(subject, Ticket)
            for seed in self.seeds
        ]

    def plans(self, tickets: Mapping[tuple[int, int], Ticket]) -> list[Arms]:
        """The runs of each subject and seed by arm: the ticket, each control, and dense for as long as they train.

        Args:
            tickets: what the searches found, by what `searched` gives. Without its ticket, a method has no plan.
        """
        made = []
        for label, subject in self.subjects:
            for seed in self.seeds:
                if isinstance(subject, Ticket):
                    ticket, init = subject, subject.provenance.seed
                elif (ticket := tickets.get(searched(subject, seed))) is not None:
                    init = None
                else:
                    continue
                own = RunSpec(self.task, subject, seed=seed, label=label, robustness=self.robustness)
                gap = budget_gap(ticket, self.task)
                dense = replace(own, subject=None, label=None, init_seed=init, extra_epochs=gap)
                controls = {name: replace(own, control=name) for name in self.controls}
                made.append({"ticket": own} | controls | {"dense": dense})
        return made

    def judged(self, plans: Sequence[Arms], made: Mapping[tuple[object, ...], Result]) -> Study:
        """The study of finished runs, with a verdict on each subject.

        Args:
            plans: the runs by arm, of each subject and seed.
            made: the results, by what `key_of` gives of their runs; without one, its subject and seed are left out.
        """
        results: dict[tuple[object, ...], Result] = {}
        by_subject: dict[tuple[str, int], list[tuple[int, dict[str, Result]]]] = {}
        for plan in plans:
            own = {
                name: replace(made[key_of(spec)], method=spec.method)
                for name, spec in plan.items()
                if key_of(spec) in made
            }
            # A method that has two names has its runs once, and a row by each.
            results |= {(plan[name].method, key_of(plan[name])): result for name, result in own.items()}
            if len(own) == len(plan):
                spec = plan["ticket"]
                by_subject.setdefault((spec.method, id(spec.subject)), []).append((spec.seed, own))
        verdicts = []
        for repeats in by_subject.values():
            arms = {name: [own[name] for _, own in repeats] for name in repeats[0][1]}
            metrics = {name: [result.metric for result in arm] for name, arm in arms.items()}
            first = arms["ticket"][0]
            collapsed = tuple(dict.fromkeys(layer for result in arms["ticket"] for layer in result.collapsed))
            measure = measure_of(self.task, [value for own in metrics.values() for value in own])
            took = [cost.get("seconds", 0.0) for own in arms.values() for r in own for cost in (r.search, r.training)]
            verdicts.append(
                judge(
                    first.method,
                    first.density,
                    metrics,
                    [seed for seed, _ in repeats],
                    self.margin,
                    collapsed,
                    measure=measure,
                    seconds=math.fsum(took) / len(repeats),
                )
            )
        return Study(tuple(results.values()), tuple(verdicts))


def searched(subject: object, seed: int) -> tuple[int, int]:
    """What tells apart the searches of one study."""
    return id(subject), seed


def runs_of(plans: Sequence[Arms]) -> dict[tuple[object, ...], RunSpec]:
    """The runs of plans, each once, by what tells them apart."""
    return {key_of(spec): spec for plan in plans for spec in plan.values()}


def key_of(spec: RunSpec) -> tuple[object, ...]:
    """What tells apart the runs of one study."""
    return id(spec.task), id(spec.subject), spec.control, spec.seed, spec.init_seed, spec.extra_epochs, spec.lr
