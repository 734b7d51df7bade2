"""What is to be done of a study, as far as is known: searches first, then the runs of the tickets that they found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tombola.errors import DamagedError
from tombola.studies.batch_training import Piece, pieces_of
from tombola.studies.comparison import Study
from tombola.studies.executor import Engine
from tombola.studies.grid import Grid, key_of, runs_of, searched
from tombola.studies.plan import Arms
from tombola.studies.prepared import Prepared, prepare
from tombola.studies.result import Result
from tombola.studies.run_folder import Failure
from tombola.studies.spec import RunSpec
from tombola.tickets import Ticket
from tombola.training import check_first_batch


@dataclass
class Agenda:
    """The runs of grids, which become known as tickets are found.

    Every worker of a study has an agenda of its own. All of them find the same pieces, since these follow from the
    grids and the tickets alone.

    Args:
        grids: what is compared.
        engine: where runs are kept, and what carries them out.
    """

    grids: Sequence[Grid]
    engine: Engine
    _prepared: dict[Any, Prepared] = field(default_factory=dict)
    _outcomes: dict[int, Ticket | Result | Failure] = field(default_factory=dict)
    _pieces: dict[int, list[Piece]] = field(default_factory=dict)

    def pieces(self) -> list[Piece]:
        """What is known and has neither ended nor failed, in the order in which it is to be begun."""
        searches = [Piece((run,), (0,)) for own in self.grids for run in self._searches(own)]
        runs = [piece for place, own in enumerate(self.grids) for piece in self._runs(place, own)]
        return [piece for piece in [*searches, *runs] if not all(map(self.outcome, piece.runs))]

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
        """How many searches and runs there will be, if no two methods need different dense networks."""
        return sum(
            len(own.searches()) + len(own.seeds) * (1 + len(own.subjects) * (1 + len(own.plan.controls)))
            for own in self.grids
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
        for own in self.grids:
            arms = self._arms(own)
            made = {key: self.outcome(self._prepare(spec)) for key, spec in runs_of(arms).items()}
            yield own.judged(arms, {key: result for key, result in made.items() if isinstance(result, Result)})

    def retry(self) -> int:
        """Let what failed be tried again; gives how many runs that are."""
        failed = self.failures()
        for run, _ in failed:
            run.folder.forget_failure()
            del self._outcomes[id(run)]
        return len(failed)

    def _searches(self, own: Grid) -> list[Prepared]:
        return [self._prepare(spec) for spec in own.searches()]

    def _arms(self, own: Grid) -> list[Arms]:
        tickets = {
            searched(run.spec.subject, run.spec.seed): ticket
            for run in self._searches(own)
            if isinstance(ticket := self.outcome(run), Ticket)
        }
        return own.arms(tickets)

    def _runs(self, place: int, own: Grid) -> list[Piece]:
        """The pieces of a grid's runs; small networks wait for all searches, which decide what is a chunk."""
        if place in self._pieces:
            return self._pieces[place]
        all_found = all(map(self.outcome, self._searches(own)))  # asked first: a search may end at any moment
        pieces = pieces_of([self._prepare(spec) for spec in runs_of(self._arms(own)).values()])
        if all_found:
            self._pieces[place] = pieces
            return pieces
        return [piece for piece in pieces if len(piece.runs) == 1 and not piece.is_small]

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
