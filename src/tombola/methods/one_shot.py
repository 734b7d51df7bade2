"""Tickets from scores of the untrained network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tombola.methods.method import DensityKind
from tombola.methods.schedule import Schedule, densities, scope_at
from tombola.scores import Score, Snip, View
from tombola.structure import Granularity, Prunable, Weights, kept_share
from tombola.tickets import Mask, Scope, Seed, Ticket, tensors_of
from tombola.training import Run, Task


@dataclass(frozen=True)
class OneShot:
    """Score the untrained network and keep its best units, in one go or in rounds.

    density: kept share of units. rounds: with more than one, the rest is scored again after each cut; regrow: each
    round chooses among all weights, by gradients of the network that the last one left, so that what was removed may
    come back. floor: units that each layer keeps at least.
    """

    density: float = 0.1
    score: Score = Snip()
    granularity: Granularity = Weights()
    scope: Scope = "global"
    rounds: int = 1
    schedule: Schedule = "exponential"
    regrow: bool = False
    floor: int = 0
    prunable: Prunable = Prunable()

    density_kind: ClassVar[DensityKind] = "exact"

    def __post_init__(self) -> None:
        self.granularity.check(self.density, self.scope)

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        start = Seed.of(model, run.seed)
        model.to(run.device)
        units = run.units(self.granularity, task, model)
        kept: Mask | None = None
        mask: Mask | None = None
        final = kept_share(units, self.density)
        with run.bars.track("scoring", self.rounds) as tick:
            for density in densities(final, self.rounds, self.schedule):
                view = View(mask=mask, prunable=self.prunable)
                if self.regrow:
                    view["regrow"] = True
                scores = run.score(self.score, task, model, **view)
                scope, share = scope_at(self.scope, density, final)
                kept = units.choose(scores, share, scope=scope, within=None if self.regrow else kept, floor=self.floor)
                mask = units.expand(kept, tensors_of(model))
                tick(f"density {density:.3g}")
        assert kept is not None
        assert mask is not None
        return Ticket(mask, start, removed=units.removed(kept))
