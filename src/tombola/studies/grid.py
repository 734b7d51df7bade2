"""A grid of runs that is known before anything ran: subjects, controls and seeds on one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tombola.methods import Method
from tombola.studies.comparison import Study
from tombola.studies.plan import Arms, Plan
from tombola.studies.prepared import SEARCH
from tombola.studies.rankings import rankings
from tombola.studies.result import Result
from tombola.studies.spec import RunSpec
from tombola.tickets import Ticket


@dataclass(frozen=True)
class Grid:
    """A comparison of which all runs are known before anything ran.

    Args:
        plan: what is compared with what, on which task.
        subjects: tickets and methods, each with what it is called.
        seeds: of the repetitions.
    """

    plan: Plan
    subjects: tuple[tuple[str, Ticket | Method], ...]
    seeds: tuple[int, ...]

    def searches(self) -> list[RunSpec]:
        """What is to be searched before all runs are known: each method with each seed."""
        return [
            RunSpec(self.plan.task, subject, SEARCH, seed, label=label)
            for label, subject in self.subjects
            if not isinstance(subject, Ticket)
            for seed in self.seeds
        ]

    def arms(self, tickets: Mapping[tuple[int, int], Ticket]) -> list[Arms]:
        """The runs of each subject and seed by arm.

        Args:
            tickets: what the searches found, by what `searched` gives. A method without its ticket has no runs.
        """
        return [
            self.plan.arms(label, subject, ticket, seed)
            for label, subject in self.subjects
            for seed in self.seeds
            for ticket in [subject if isinstance(subject, Ticket) else tickets.get(searched(subject, seed))]
            if ticket is not None
        ]

    def judged(self, runs: Sequence[Arms], made: Mapping[tuple[object, ...], Result]) -> Study:
        """The study of finished runs, with a verdict on each subject, and the methods against each other.

        Args:
            runs: by arm, of each subject and seed.
            made: the results, by what `key_of` gives of their runs; without one, its subject and seed are left out.
        """
        results: dict[tuple[object, ...], Result] = {}
        by_subject: dict[tuple[str, int], list[tuple[int, dict[str, Result]]]] = {}
        for arms in runs:
            own = {
                name: replace(made[key_of(spec)], method=spec.method)
                for name, spec in arms.items()
                if key_of(spec) in made
            }
            # A method that has two names has its runs once, and a row by each.
            results |= {(arms[name].method, key_of(arms[name])): result for name, result in own.items()}
            if len(own) == len(arms):
                spec = arms["ticket"]
                by_subject.setdefault((spec.method, id(spec.subject)), []).append((spec.seed, own))
        by_arm = [{name: [own[name] for _, own in rows] for name in rows[0][1]} for rows in by_subject.values()]
        verdicts = [
            self.plan.verdict(arms, [seed for seed, _ in rows])
            for arms, rows in zip(by_arm, by_subject.values(), strict=True)
        ]
        ranked = rankings(verdicts, [arms["ticket"] for arms in by_arm], self.plan.looks)
        return Study(tuple(results.values()), tuple(verdicts), rankings=ranked)


def searched(subject: object, seed: int) -> tuple[int, int]:
    """What tells apart the searches of one study."""
    return id(subject), seed


def runs_of(arms: Sequence[Arms]) -> dict[tuple[object, ...], RunSpec]:
    """The runs by arm, each once, by what tells them apart."""
    return {key_of(spec): spec for own in arms for spec in own.values()}


def key_of(spec: RunSpec) -> tuple[object, ...]:
    """What tells apart the runs of one study."""
    return id(spec.task), id(spec.subject), spec.control, spec.seed, spec.init_seed, spec.extra_epochs, spec.lr
