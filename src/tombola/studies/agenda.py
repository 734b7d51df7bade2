"""What is to be done of a study, as far as is known: searches first, then the runs of the tickets that they found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tombola.errors import DamagedError
from tombola.studies.batch_training import Piece, pieces_of
from tombola.studies.comparison import Study
from tombola.studies.executor import Engine
from tombola.studies.grid import Grid, Stage, key_of, runs_of, searched
from tombola.studies.plan import Arms
from tombola.studies.prepared import Prepared, prepare
from tombola.studies.result import Result
from tombola.studies.run_folder import Failure
from tombola.studies.spec import RunSpec
from tombola.tickets import Ticket
from tombola.training import check_first_batch

LONGER = -1
"""The number of the runs at equal cost, which come after all stages."""


@dataclass
class Agenda:
    """The runs of grids, which become known as tickets are found and as verdicts stay open.

    Every worker of a study has an agenda of its own. All of them find the same pieces, since these follow from the
    grids and from what finished runs came to alone.

    Args:
        grids: what is compared.
        engine: where runs are kept, and what carries them out.
    """

    grids: Sequence[Grid]
    engine: Engine
    _prepared: dict[Any, Prepared] = field(default_factory=dict)
    _outcomes: dict[int, Ticket | Result | Failure] = field(default_factory=dict)
    _stages: dict[int, list[Stage]] = field(default_factory=dict)
    _pieces: dict[tuple[int, int], list[Piece]] = field(default_factory=dict)

    def pieces(self) -> list[Piece]:
        """What is known and has neither ended nor failed, in the order in which it is to be begun."""
        places = range(len(self.grids))
        searches = [Piece((run,), (0,)) for place in places for run in self._searches(self.stages(place))]
        runs = [piece for place in places for piece in self._runs(place)]
        return [piece for piece in [*searches, *runs] if not all(map(self.outcome, piece.runs))]

    def stages(self, place: int) -> list[Stage]:
        """What is known of a grid, by its place among them: one stage, or until it is decided one after another."""
        own = self.grids[place]
        stages = self._stages.setdefault(place, [own.first_stage()])
        while self._has_ended(place, len(stages) - 1) and (more := own.next_stage(stages, *self._finished(place))):
            stages.append(more)
        return stages

    def look_at_tasks(self) -> None:
        """Look once at the task of what is yet to begin, before there is a folder of what cannot be learnt.

        Raises:
            TombolaError: training would fail or learn nothing of sense; it names the place and the fix.
        """
        for run in (run for piece in self.pieces() for run in piece.runs):
            check_first_batch(run.spec.task, run.spec.seed, self.engine.executor.device)

    def known(self) -> list[Prepared]:
        """All searches and runs that are known so far."""
        return list(self._prepared.values())

    def known_if_finished(self) -> list[Prepared]:
        """All searches and runs that are known by what is finished."""
        self.pieces()
        return self.known()

    def expected(self) -> int:
        """How many searches and runs there will be, if no two methods need different dense networks.

        Until it is decided, those of the stages that are known.
        """
        return sum(
            len(stage.searches()) + len(stage.seeds) * (1 + len(stage.subjects) * (1 + len(stage.plan.controls)))
            for place in range(len(self.grids))
            for stage in self.stages(place)
        )

    def outcome(self, run: Prepared) -> Ticket | Result | Failure | None:
        """What a run came to, or why it failed; None before either."""
        if id(run) not in self._outcomes and (outcome := _outcome(run)) is not None:
            self._outcomes[id(run)] = outcome
        return self._outcomes.get(id(run))

    def failures(self) -> list[tuple[Prepared, Failure]]:
        """The runs that failed, with why."""
        return [(run, own) for run in self.known() if isinstance(own := self.outcome(run), Failure)]

    def studies(self) -> Iterator[Study]:
        """Each grid's study, with what is finished."""
        for place, own in enumerate(self.grids):
            yield own.judged(*self._finished(place))

    def retry(self) -> int:
        """Let what failed be tried again; gives how many runs that are."""
        failed = self.failures()
        for run, _ in failed:
            run.folder.forget_failure()
            del self._outcomes[id(run)]
        return len(failed)

    def _searches(self, stages: Iterable[Stage]) -> list[Prepared]:
        return [self._prepare(spec) for stage in stages for spec in stage.searches()]

    def _arms(self, stages: Sequence[Stage]) -> list[Arms]:
        tickets = {
            searched(run.spec.subject, run.spec.seed): ticket
            for run in self._searches(stages)
            if isinstance(ticket := self.outcome(run), Ticket)
        }
        return [arms for stage in stages for arms in stage.arms(tickets)]

    def _finished(self, place: int) -> tuple[list[Arms], dict[tuple[object, ...], Result]]:
        """The runs of a grid that are known, by arm, and what the finished ones and the longer ones came to."""
        arms = self._arms(self._stages[place])
        runs = {key: self._prepare(spec) for key, spec in runs_of(arms).items()}
        longer = {id(run) for piece in self._pieces.get((place, LONGER), []) for run in piece.runs}
        # By the key that a run was asked for with: its task is another one once its precision is resolved.
        runs |= {key: run for key, run in self._prepared.items() if id(run) in longer}
        outcomes = {key: self.outcome(run) for key, run in runs.items()}
        return arms, {key: result for key, result in outcomes.items() if isinstance(result, Result)}

    def _runs(self, place: int) -> list[Piece]:
        """The pieces of a grid's runs; those at equal cost come when all else has ended."""
        stages = self.stages(place)
        found = [piece for number in range(len(stages)) for piece in self._runs_of_stage(place, number)]
        if self._has_ended(place, len(stages) - 1):
            if (place, LONGER) not in self._pieces:
                specs = self.grids[place].longer_runs(*self._finished(place))
                self._pieces[place, LONGER] = pieces_of(list(map(self._prepare, specs)))
            found += self._pieces[place, LONGER]
        return found

    def _runs_of_stage(self, place: int, number: int) -> list[Piece]:
        """The pieces of a stage's runs; small networks wait for all its searches, which decide what is a chunk."""
        if (place, number) in self._pieces:
            return self._pieces[place, number]
        stage = self._stages[place][number]
        all_found = all(map(self.outcome, self._searches([stage])))  # asked first: a search may end at any moment
        pieces = pieces_of([self._prepare(spec) for spec in runs_of(self._arms([stage])).values()])
        if all_found:
            self._pieces[place, number] = pieces
            return pieces
        return [piece for piece in pieces if len(piece.runs) == 1 and not piece.is_small]

    def _has_ended(self, place: int, number: int) -> bool:
        """Whether all of a stage has ended or failed."""
        pieces = self._runs_of_stage(place, number)
        return (place, number) in self._pieces and all(self.outcome(run) for piece in pieces for run in piece.runs)

    def _prepare(self, spec: RunSpec) -> Prepared:
        key = key_of(spec)
        if key not in self._prepared:
            self._prepared[key] = prepare(spec, self.engine.store, self.engine.executor)
        return self._prepared[key]


def _outcome(run: Prepared) -> Ticket | Result | Failure | None:
    folder = run.folder
    try:
        if (failure := folder.failure()) is not None:
            return failure
        if run.is_search:
            return folder.finished(run.settings, folder.ticket)
        result = folder.finished(run.settings, folder.result)
    except DamagedError:  # it is set aside, and made again, when the run's turn comes
        return None
    return None if result is None else replace(result, method=run.spec.method)
