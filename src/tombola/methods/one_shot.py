"""Tickets from scores of the untrained network, or of one that has just begun to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.density_schedule import Schedule, densities, scope_at
from tombola.methods.protocol import DensityKind
from tombola.scores import Score, Snip, View, check_goes_with
from tombola.structure import Granularity, Prunable, Weights, kept_share
from tombola.tickets import Mask, Scope, Seed, Ticket, Values, tensors_of
from tombola.training import GatheredScores, Run, Task, Until, gather_scores


@dataclass(frozen=True)
class OneShot:
    """Score the untrained network and keep its best units, in one go or in rounds.

    density: kept share of units. rounds: with more than one, the rest is scored again after each cut, on the batches of
    another epoch; regrow: each round chooses among all weights, by gradients of the network that the last one left, so
    that what was removed may come back. floor: units that each layer keeps at least. after: epochs of the recipe's
    schedule that train the network before it is scored; the ticket then goes on from there with those weights
    (`inherited`; where no epoch is left, through the schedule again), or begins again with the initialisation (`init`).
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
    after: int = 0
    weights: Literal["inherited", "init"] = "inherited"

    density_kind: ClassVar[DensityKind] = "exact"

    def __post_init__(self) -> None:
        check_fields(self)
        self.granularity.check(self.density, self.scope)
        check_goes_with(self.score, self.granularity)
        if self.after < 0:
            raise TombolaError(f"after is {self.after}; give the epochs of training before the score, 0 for none")

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        start: Seed | Values = Seed.of(model, run.seed)
        model.to(run.device)
        units = run.units(self.granularity, task, model)
        noted: GatheredScores | None = None
        prescribed: dict[str, Any] = {}
        if self.after:
            noted = gather_scores(self.score, self.prunable(model))
            observers = [own for own in (noted, Until(self.after)) if own is not None]
            spent = len(run.stage("search", task, model, observers=observers).history)
            if self.weights == "inherited":
                going_on = spent < task.recipe.epochs
                start = Values(tensors_of(model), f"{spent}ep" if going_on else "end", spent)
                prescribed = {"start": start.what} if going_on else {}
        kept: Mask | None = None
        mask: Mask | None = None
        final = kept_share(units, self.density)
        with run.bars.track("scoring", self.rounds) as tick:
            for turn, density in enumerate(densities(final, self.rounds, self.schedule)):
                view = View(mask=mask, prunable=self.prunable)
                if self.regrow:
                    view["regrow"] = True
                scores = run.score(self.score, task, model, noted, epoch=turn, **view)
                scope, share = scope_at(self.scope, density, final)
                kept = units.choose(scores, share, scope=scope, within=None if self.regrow else kept, floor=self.floor)
                mask = units.expand(kept, tensors_of(model))
                tick(f"density {density:.3g}")
        assert kept is not None
        assert mask is not None
        return Ticket(mask, start, recipe=prescribed, removed=units.removed(kept))
