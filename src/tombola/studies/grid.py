"""A grid of runs that is known before anything ran: subjects, controls and seeds on one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tombola.evidence import EachSeed, Verdict
from tombola.evidence.looks import FIRST
from tombola.methods import Method
from tombola.studies.comparison import Study
from tombola.studies.plan import Arms, Plan
from tombola.studies.prepared import SEARCH
from tombola.studies.rankings import Longer, longer, rankings
from tombola.studies.result import Result
from tombola.studies.seeds import after_look
from tombola.studies.spec import RunSpec
from tombola.tickets import Ticket

Subjects = tuple[tuple[str, Ticket | Method], ...]
"""Tickets and methods, each with what it is called."""
Made = Mapping[tuple[object, ...], Result]
"""Results, by what `key_of` gives of their runs."""
Row = tuple[Arms, dict[str, Result]]
"""The runs of one subject and seed by arm, and what they came to."""


@dataclass(frozen=True)
class Stage:
    """Some subjects with the seeds that they run next; it is known once all stages before it have ended.

    Args:
        plan: what is compared with what, on which task.
        subjects: those whose verdicts are open.
        seeds: of this stage alone.
    """

    plan: Plan
    subjects: Subjects
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


@dataclass(frozen=True)
class Grid:
    """A comparison of which all runs are known before anything ran; or, until it is decided, stage by stage.

    Args:
        plan: what is compared with what, on which task. It says how often one looks: where that is after each seed,
            the first stage has the seeds before the first look, and each further one another seed.
        subjects: tickets and methods, each with what it is called.
        seeds: of the repetitions; where one looks after each, all that there may be.
        equal_cost: rank the methods at equal cost, too.
    """

    plan: Plan
    subjects: Subjects
    seeds: tuple[int, ...]
    equal_cost: bool = False

    def first_stage(self) -> Stage:
        """What is known before anything ran."""
        is_open = isinstance(self.plan.looks, EachSeed)
        return Stage(self.plan, self.subjects, self.seeds[:FIRST] if is_open else self.seeds)

    def next_stage(self, stages: Sequence[Stage], runs: Sequence[Arms], made: Made) -> Stage | None:
        """One more seed of each subject whose verdict is open; None where there is none.

        A subject of which a run failed gets no further seeds.

        Args:
            stages: all that have ended.
            runs: of all of them, by arm.
            made: what these came to.
        """
        count = sum(len(stage.seeds) for stage in stages)
        if count == len(self.seeds):
            return None
        rows = self._rows(runs, made)
        still_open = tuple(
            (label, subject)
            for label, subject in stages[-1].subjects
            if len(own := rows.get((label, id(subject)), [])) == count and not self._verdict(own).ended
        )
        return Stage(self.plan, still_open, self.seeds[count : count + 1]) if still_open else None

    def longer_runs(self, runs: Sequence[Arms], made: Made) -> list[RunSpec]:
        """What a ranking at equal cost needs once all else has ended: tickets, and dense, that train for longer."""
        return list({key_of(spec): spec for own in self._longer(self._rows(runs, made)) for spec in own.specs}.values())

    def judged(self, runs: Sequence[Arms], made: Made) -> Study:
        """The study of finished runs, with a verdict on each subject, and the methods against each other.

        Args:
            runs: by arm, of each subject and seed.
            made: what they came to, and the longer runs; without one, its subject and seed are left out.
        """
        # A method that has two names has its runs once, and a row by each.
        results = {
            (spec.method, key_of(spec)): replace(made[key_of(spec)], method=spec.method)
            for arms in runs
            for spec in arms.values()
            if key_of(spec) in made
        }
        rows = self._rows(runs, made)
        verdicts = [self._verdict(own) for own in rows.values()]
        ranked = rankings(verdicts, _tickets(rows), self.plan.looks)
        trained = self._longer(rows)
        if trained and all(key_of(spec) in made for own in trained for spec in own.specs):
            tickets = [own.named(made[key_of(spec)] for spec in own.specs) for own in trained]
            ranked += rankings(verdicts, tickets, self.plan.looks, equal_cost=True)
        return Study(tuple(results.values()), tuple(verdicts), rankings=ranked)

    def _rows(self, runs: Sequence[Arms], made: Made) -> dict[tuple[str, int], list[Row]]:
        """What is finished of each subject, seed by seed."""
        rows: dict[tuple[str, int], list[Row]] = {}
        for arms in runs:
            if all(key_of(spec) in made for spec in arms.values()):
                own = {name: replace(made[key_of(spec)], method=spec.method) for name, spec in arms.items()}
                rows.setdefault((arms["ticket"].method, id(arms["ticket"].subject)), []).append((arms, own))
        return rows

    def _verdict(self, rows: Sequence[Row]) -> Verdict:
        by_arm = {name: [own[name] for _, own in rows] for name in rows[0][1]}
        verdict = self.plan.verdict(by_arm, [arms["ticket"].seed for arms, _ in rows])
        return after_look(verdict, self.plan.looks, len(rows))

    def _longer(self, rows: Mapping[tuple[str, int], Sequence[Row]]) -> list[Longer]:
        return longer(list(rows.values())) if self.equal_cost else []


def _tickets(rows: Mapping[tuple[str, int], Sequence[Row]]) -> list[list[Result]]:
    return [[own["ticket"] for _, own in of_subject] for of_subject in rows.values()]


def searched(subject: object, seed: int) -> tuple[int, int]:
    """What tells apart the searches of one study."""
    return id(subject), seed


def runs_of(arms: Sequence[Arms]) -> dict[tuple[object, ...], RunSpec]:
    """The runs by arm, each once, by what tells them apart."""
    return {key_of(spec): spec for own in arms for spec in own.values()}


def key_of(spec: RunSpec) -> tuple[object, ...]:
    """What tells apart the runs of one study."""
    return id(spec.task), id(spec.subject), spec.control, spec.seed, spec.init_seed, spec.extra_epochs, spec.lr
