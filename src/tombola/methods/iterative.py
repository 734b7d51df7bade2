"""Iterative pruning: train, remove, rewind, again (IMP and its kin)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.density_schedule import Schedule, densities, rounds_for, scope_at
from tombola.methods.protocol import DensityKind
from tombola.methods.rewinding import KEEPS_WEIGHTS, REWINDS, check_rewind, prescribed, step_of
from tombola.methods.rounds import Rewinder, Round
from tombola.scores import (
    Batches,
    Forward,
    Loss,
    Magnitude,
    Score,
    View,
    check_goes_with,
    forward,
    needs_training,
    probe_of,
)
from tombola.structure import Granularity, Prunable, UnitMap, Weights, kept_share
from tombola.tickets import Mask, Scope, Seed, Ticket, Values, digest_of, put_values, tensors_of
from tombola.training import Run, Snapshot, Task, gather_scores, mixed


@dataclass(frozen=True)
class Iterative:
    """Train, remove the lowest-scored share, rewind, and again: iterative magnitude pruning by default.

    share: removed of what remains each round; the rounds that reach the density are equal, and never more than
    about this. count: the number of rounds instead; where blocks are counted one block a round if None. rewind: what
    each round and the ticket train from: `init`; a step, as "500it" or "1ep" (Frankle et al., 2020); `learning-rate`,
    the trained weights with the schedule begun again (Renda et al., 2020); `fine-tune`, the trained weights at the
    final learning rate; `fresh`, rounds from init but the ticket from another initialisation.
    """

    density: float = 0.1
    score: Score = Magnitude()
    granularity: Granularity = Weights()
    scope: Scope = "global"
    share: float = 0.2
    count: int | None = None
    schedule: Schedule = "exponential"
    rewind: str = "init"
    floor: int = 0
    prunable: Prunable = Prunable()

    density_kind: ClassVar[DensityKind] = "exact"

    def __post_init__(self) -> None:
        check_fields(self)
        check_rewind(self.rewind)
        self.granularity.check(self.density, self.scope)
        check_goes_with(self.score, self.granularity)

    def levels(self, units: UnitMap) -> list[float]:
        """The density after each round."""
        final, rounds = kept_share(units, self.density), self.count
        if rounds is None:
            rounds = getattr(self.granularity, "remove", None) or rounds_for(final, self.share)
        return densities(final, rounds, self.schedule)

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        initial = Values(tensors_of(model), "init")
        model.to(run.device)
        units = run.units(self.granularity, task, model)
        recipe, later = task.recipe, replace(task.recipe, **prescribed(self.rewind, task.recipe))
        snapshot = Snapshot(step_of(self.rewind))
        kept: Mask | None = None
        mask: Mask | None = None
        levels = self.levels(units)
        with run.bars.track("rounds", len(levels)) as tick:
            for index, density in enumerate(levels):
                noted = gather_scores(self.score, self.prunable(model))
                observers = [own for own in (snapshot if index == 0 else None, noted) if own is not None]
                name = f"round-{index:02d}"
                run.stage(name, task, model, recipe=later if index else recipe, attached=mask, observers=observers)
                scores = run.score(self.score, task, model, noted, mask=mask, prunable=self.prunable)
                scope, share = scope_at(self.scope, density, levels[-1])
                kept = units.choose(scores, share, scope=scope, within=kept, floor=self.floor)
                mask = units.expand(kept, tensors_of(model))
                if self.rewind not in KEEPS_WEIGHTS:
                    put_values(model, snapshot.taken)
                tick(f"density {density:.3g}")
        assert kept is not None
        assert mask is not None
        spent = float(len(levels) * task.recipe.epochs)
        start = self._start(task, model, run.seed, initial, snapshot, spent)
        return Ticket(mask, start, recipe=prescribed(self.rewind, task.recipe), removed=units.removed(kept))

    def rounds(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, forward: Forward = forward
    ) -> Generator[Round]:
        """Iterative pruning around your own training: train `round.model` in each round, the ticket in the last.

        After each round but the last the model is pruned and rewound in place. batches and loss: for a score
        or a granularity that needs data. A step to rewind to is counted in your optimizer's steps, as "500it".
        """
        if self.rewind in ("fresh", "fine-tune") or self.rewind.endswith("ep"):
            raise TombolaError(
                f"rewind='{self.rewind}' needs to know the training; in your own loop give "
                "'init', 'learning-rate' or '500it'"
            )
        if needs_training(self.score):
            raise TombolaError(
                f"the score '{self.score.name}' as it is set gathers gradients while Tombola trains; in your own loop "
                "give one that needs no more than batches, as WeightGradient(gather='pass')"
            )
        units = self.granularity.units(model, probe_of(batches, forward))
        rewinder = Rewinder(step_of(self.rewind), Values(tensors_of(model), "init"))
        levels = self.levels(units)
        start, kept, mask = rewinder.initial, None, Mask.full(self.prunable(model))
        for index, density in enumerate([1.0, *levels]):
            yield Round(index, density, mask, model, start, rewinder.count if index == 0 else None)
            if index == len(levels):
                return
            view = View(mask=mask, prunable=self.prunable, forward=forward)
            scores = self.score(model, batches, loss, **view)
            scope, share = scope_at(self.scope, levels[index], levels[-1])
            kept = units.choose(scores, share, scope=scope, within=kept, floor=self.floor)
            mask = units.expand(kept, tensors_of(model))
            start = Values(tensors_of(model), "end") if self.rewind in KEEPS_WEIGHTS else rewinder.values
            put_values(model, start.tensors)

    def _start(
        self, task: Task, model: nn.Module, seed: int, initial: Values, snapshot: Snapshot, spent: float
    ) -> Seed | Values:
        if self.rewind in KEEPS_WEIGHTS:
            return Values(tensors_of(model), "end", epochs_spent=spent)
        if self.rewind in REWINDS:
            own = seed if self.rewind == "init" else mixed(seed, 1)
            return Seed(own, digest_of(initial.tensors if own == seed else tensors_of(task.build(own))))
        return Values(snapshot.taken, self.rewind, snapshot.epochs_spent)
