"""Tickets from scores of the untrained network, or of one that has just begun to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.density_schedule import Schedule, densities, scope_at
from tombola.methods.protocol import DensityKind, kind_at
from tombola.scores import Score, Snip, View, as_summed, check_goes_with
from tombola.structure import Granularity, Prunable, Weights, check_granularity, kept_share
from tombola.tickets import Mask, Scope, Seed, Ticket, Values, tensors_of
from tombola.training import GatheredScores, Run, Task, Until, gather_scores


@dataclass(frozen=True)
class OneShot:
    """Score the untrained network and keep its best units, in one go or in rounds.

    Args:
        density: the share of units to keep, above 0 and at most 1.
        score: how much a weight or a unit is worth.
        granularity: what is removed together: weight, n:m, channel, …
        scope: how layers share the density: all units are ranked together (`global`), each layer keeps the same
            share (`layerwise`), by a rule for random masks (`erk`, `smart-ratio`), or a density for each layer.
        rounds: cuts that lead to the density. With more than one, each round scores what is left again, on the batches
            of another epoch.
        schedule: how the density falls from round to round.
        regrow: whether each round chooses among all weights, so that removed ones may come back. The score then uses
            the gradients of the network that the last round left.
        floor: units that each layer keeps at least.
        prunable: which parameters may be pruned.
        after: epochs of the recipe's schedule that train the network before it is scored.
        weights: what the ticket trains from, with `after`: the weights of that epoch, at that point of the
            schedule (`inherited`; where no epoch is left, through the whole schedule), or the initialisation (`init`).

    Raises:
        TombolaError: if a setting is out of range, or the score does not suit the granularity.

    Examples:
        >>> from tombola.scores import SynFlow
        >>> OneShot(density=0.02, score=SynFlow(), rounds=100, floor=1).density_kind
        'exact'
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

    def __post_init__(self) -> None:
        check_fields(self)
        check_granularity(self.granularity, self.density, self.scope)
        check_goes_with(self.score, self.granularity)
        if self.after < 0:
            raise TombolaError(f"after is {self.after}; give the epochs of training before the score, 0 for none")

    @property
    def density_kind(self) -> DensityKind:
        return kind_at(self.scope, self.granularity)

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        start: Seed | Values = Seed.of(model, run.seed)
        model.to(run.device)
        units = run.units(self.granularity, task, model)
        score = as_summed(self.score, self.granularity, model, run.probe(task))
        gathered: GatheredScores | None = None
        recipe: dict[str, Any] = {}
        if self.after:
            gathered = gather_scores(score, self.prunable(model))
            observers = [observer for observer in (gathered, Until(self.after)) if observer is not None]
            spent = len(run.stage("search", task, model, observers=observers).history)
            if self.weights == "inherited":
                epochs_left = spent < task.recipe.epochs
                start = Values(tensors_of(model), f"{spent}ep" if epochs_left else "end", spent)
                recipe = {"start": start.what} if epochs_left else {}
        kept_units: Mask | None = None
        mask: Mask | None = None
        final = kept_share(units, self.density)
        with run.bars.track("scoring", self.rounds) as tick:
            for epoch, density in enumerate(densities(final, self.rounds, self.schedule)):
                view = View(mask=mask, prunable=self.prunable)
                if self.regrow:
                    view["regrow"] = True
                scores = run.score(score, task, model, gathered, epoch=epoch, **view)
                scope, share = scope_at(self.scope, density, final)
                kept_units = units.choose(
                    scores, share, scope=scope, within=None if self.regrow else kept_units, floor=self.floor
                )
                mask = units.expand(kept_units, tensors_of(model))
                tick(f"density {density:.3g}")
        assert kept_units is not None
        assert mask is not None
        return Ticket(mask, start, recipe=recipe, removed=units.removed(kept_units))
