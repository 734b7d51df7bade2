"""Boosting tickets: drawn from a training at a small learning rate, and trained with a warm-up from there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.protocol import DensityKind, kind_at
from tombola.scores import Magnitude, Scores
from tombola.structure import Granularity, Prunable, Weights, check_granularity, kept_share
from tombola.tickets import Provenance, Scope, Seed, Ticket, tensors_of
from tombola.training import (
    Attack,
    RobustWatch,
    Run,
    SampleFlops,
    Task,
    adversary_of,
    first_of,
    with_attack,
    without_attack,
)


@dataclass(frozen=True)
class Boosting:
    """Train at a small learning rate, keep the largest weights, rewind, and let the ticket warm up from that rate.

    Li, Wang, Jia, Lu, Zhong, Carin, Jana, Towards Practical Lottery Ticket Hypothesis for Adversarial Training, arXiv
    2003.05733. Tickets from small learning rates learn faster. On an adversarial task the search takes the cheap attack
    of one step, and the ticket trains under the task's own.

    Args:
        density: the share of units to keep, above 0 and at most 1.
        granularity: what is removed together: weight, n:m, channel, …
        scope: how layers share the density: all units are ranked together (`global`), or each layer keeps the same
            share (`layerwise`).
        lr: the learning rate of the search; a tenth of the recipe's if None.
        warmup: over which share of all epochs the ticket's learning rate rises from there to the recipe's.
        normalise: whether weights are ranked by their size over the mean of their layer, as in the published code; else
            by their size, as in the text.
        search_attack: that of the search on an adversarial task: one step of ε from the input (`fgsm`) or from a random
            point (`fast`), the task's own (`own`), or none (`none`).
        floor: units that each layer keeps at least.
        prunable: which parameters may be pruned.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> ticket = tb.find(toy_task(epochs=2), Boosting(warmup=0.5))
        >>> dict(ticket.recipe)
        {'warmup': 1.0, 'warmup_from': 0.005}
    """

    density: float = 0.2
    granularity: Granularity = Weights()
    scope: Scope = "global"
    lr: float | None = None
    warmup: float = 0.1
    normalise: bool = True
    search_attack: Literal["fgsm", "fast", "own", "none"] = "fgsm"
    floor: int = 0
    prunable: Prunable = Prunable()

    def __post_init__(self) -> None:
        check_fields(self)
        check_granularity(self.granularity, self.density, self.scope)
        if self.lr is not None and not self.lr > 0:
            raise TombolaError(f"lr is {self.lr}; give a number above 0, smaller than the recipe's")
        if not 0 <= self.warmup < 1:
            raise TombolaError(f"warmup is {self.warmup}; give a share of all epochs, at least 0 and below 1")

    @property
    def density_kind(self) -> DensityKind:
        return kind_at(self.scope, self.granularity)

    def find(self, task: Task, run: Run) -> Ticket:
        small = task.recipe.lr / 10 if self.lr is None else self.lr
        if small > task.recipe.lr:
            raise TombolaError(
                f"the search's learning rate is {small:g}, and the recipe's {task.recipe.lr:g}; give a smaller one"
            )
        searching = self._searching(task)
        model = task.build(run.seed)
        start = Seed.of(model, run.seed)
        model.to(run.device)
        units = run.units(self.granularity, task, model)
        watches = [] if adversary_of(searching) is None else [RobustWatch(searching, decides=False)]
        recipe = replace(task.recipe, lr=small, warmup=0.0)
        fit = run.stage("search", searching, model, recipe=recipe, observers=watches)
        self._charge(task, searching, run, fit.cost.dense_epochs)
        scores = run.score(Magnitude(), without_attack(task), model, prunable=self.prunable)
        kept = units.choose(
            self._worth(scores), kept_share(units, self.density), scope=self.scope, within=None, floor=self.floor
        )
        warmup = float(round(self.warmup * task.recipe.epochs))
        prescribed = {"warmup": warmup, "warmup_from": small} if warmup else {}
        mask = units.expand(kept, tensors_of(model))
        provenance = Provenance(whole=fit.validation)
        return Ticket(mask, start, recipe=prescribed, removed=units.removed(kept), provenance=provenance)

    def _searching(self, task: Task) -> Task:
        adversary = adversary_of(task)
        if adversary is None or self.search_attack == "own":
            return task
        if self.search_attack == "none":
            return without_attack(task)
        kinds = {"fgsm": Attack.fgsm, "fast": Attack.fast}
        return with_attack(task, kinds[self.search_attack](adversary.attack.epsilon, adversary.attack.units))

    @staticmethod
    def _charge(task: Task, searching: Task, run: Run, epochs: float) -> None:
        """Count the epochs of the search in those of the task, whose attack may be dearer."""
        if searching is task:
            return
        batch, model = first_of(task.batches("train", run.seed, 0)), task.build(run.seed)
        own, other = (SampleFlops.measure(each, model, batch).training for each in (searching, task))
        run.cost = replace(run.cost, dense_epochs=run.cost.dense_epochs - (1 - own / other) * epochs)

    def _worth(self, scores: Scores) -> Scores:
        if not self.normalise:
            return scores
        return {name: score / score.mean().clamp(min=1e-30) for name, score in scores.items()}
