"""Iterative pruning: train, remove, rewind, again (IMP and its kin)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.density_schedule import Schedule, densities, rounds_for, scope_at
from tombola.methods.protocol import DensityKind, kind_at
from tombola.methods.rewinding import KEEPS_WEIGHTS, check_rewind, prescribed, step_of
from tombola.methods.rounds import Rounds
from tombola.scores import (
    Batches,
    Forward,
    Loss,
    Magnitude,
    Score,
    as_summed,
    check_goes_with,
    forward,
    needs_training,
)
from tombola.structure import Granularity, Prunable, UnitMap, Weights, check_granularity, kept_share
from tombola.tickets import Mask, Scope, Seed, Ticket, Values, digest_of, put_values, tensors_of
from tombola.training import Observer, Recipe, Run, Snapshot, Task, gather_scores, mixed


@dataclass(frozen=True)
class Iterative:
    """Train, remove the lowest-scored share, rewind, and again: iterative magnitude pruning by default.

    Iterative magnitude pruning is by Frankle & Carbin (ICLR 2019).

    Args:
        density: the share of units to keep, above 0 and at most 1.
        score: how much a weight or a unit of the trained network is worth.
        granularity: what is removed together: weight, n:m, channel, …
        scope: how layers share the density: all units are ranked together (`global`), each layer keeps the same
            share (`layerwise`), by a rule for random masks (`erk`, `smart-ratio`), or a density for each layer.
        share: the share of the remaining units that each round removes, about: all rounds remove the same share, so
            that the last one meets the density.
        count: the number of rounds, in place of share. If None, share decides, or where blocks are counted, each round
            removes one block.
        schedule: how the density falls from round to round.
        rewind: what the next round and the ticket train from: `init`; a step, as "500it" or "1ep" (Frankle et al., ICML
            2020); `learning-rate`, the trained weights with the schedule begun again (Renda et al., ICLR
            2020); `fine-tune`, the trained weights at the final learning rate; `fresh`, rounds from init but the ticket
            from another initialisation.
        floor: units that each layer keeps at least.
        prunable: which parameters may be pruned.

    Raises:
        TombolaError: if a setting is out of range, or the score does not suit the granularity.

    Examples:
        >>> import torch
        >>> model = torch.nn.Linear(10, 2)
        >>> [round.mask.total_kept for round in Iterative(density=0.25, count=2).rounds(model)]
        [20, 10, 5]
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

    def __post_init__(self) -> None:
        check_fields(self)
        check_rewind(self.rewind)
        check_granularity(self.granularity, self.density, self.scope)
        check_goes_with(self.score, self.granularity)

    @property
    def density_kind(self) -> DensityKind:
        return kind_at(self.scope, self.granularity)

    def levels(self, units: UnitMap) -> list[float]:
        """The density after each round, for the units of a network."""
        final, rounds = kept_share(units, self.density), self.count
        if rounds is None:
            rounds = getattr(self.granularity, "remove", None) or rounds_for(final, self.share)
        return densities(final, rounds, self.schedule)

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        initial = Values(tensors_of(model), "init")
        model.to(run.device)
        units = run.units(self.granularity, task, model)
        score = as_summed(self.score, self.granularity, model, run.probe(task))
        first, later = task.recipe, replace(task.recipe, **prescribed(self.rewind, task.recipe))
        snapshot = Snapshot(step_of(self.rewind))
        kept_units: Mask | None = None
        mask: Mask | None = None
        levels = self.levels(units)
        with run.bars.track("rounds", len(levels)) as tick:
            for index, density in enumerate(levels):
                gathered = gather_scores(score, self.prunable(model))
                recipe, ends = self.training_of_round(later if index else first, len(levels))
                observers = [
                    observer for observer in (snapshot if index == 0 else None, gathered, ends) if observer is not None
                ]
                run.stage(f"round-{index:02d}", task, model, recipe=recipe, attached=mask, observers=observers)
                scores = run.score(score, task, model, gathered, mask=mask, prunable=self.prunable)
                scope, share = scope_at(self.scope, density, levels[-1])
                kept_units = units.choose(scores, share, scope=scope, within=kept_units, floor=self.floor)
                mask = units.expand(kept_units, tensors_of(model))
                if self.rewind not in KEEPS_WEIGHTS:
                    self.put_back(model, snapshot.taken)
                tick(f"density {density:.3g}")
        assert kept_units is not None
        assert mask is not None
        spent = float(len(levels) * task.recipe.epochs)
        start = self._start(task, model, run.seed, initial, snapshot, spent)
        return Ticket(mask, start, recipe=prescribed(self.rewind, task.recipe), removed=units.removed(kept_units))

    def training_of_round(self, recipe: Recipe, rounds: int) -> tuple[Recipe, Observer | None]:
        """The recipe by which each of so many rounds trains, and what ends the round before the recipe does."""
        return recipe, None

    def put_back(self, model: nn.Module, values: Mapping[str, Tensor]) -> None:
        """Rewind a network to these values, after a round."""
        put_values(model, values)

    def rounds(
        self,
        model: nn.Module,
        batches: Batches = (),
        loss: Loss | None = None,
        forward: Forward = forward,
        *,
        folder: str | Path | None = None,
    ) -> Rounds:
        """Iterative pruning around your own training: train `round.model` in each round, the ticket in the last.

        After each round but the last, the model is pruned and rewound in place.

        Args:
            model: the network, untrained.
            batches: pairs of inputs and targets, for a score or a granularity that needs data.
            loss: of outputs and targets, for a score that needs it.
            forward: how to call the model on inputs.
            folder: where it is kept which round it is, and from which weights and mask; a program that was killed goes
                on with that round. How far the round itself has come is in your own checkpoints.

        Returns:
            An iterator over the rounds, the first one dense. Train inside `with round.attach(optimizer)`. A step to
            rewind to counts the steps of that optimizer, so write it as "500it".

        Raises:
            TombolaError: if the rewinding or the score needs to know Tombola's own training, or if the first round took
                too few steps to rewind to.
        """
        self.check_own_loop()
        return Rounds(self, model, batches, loss, forward, folder)

    def check_own_loop(self) -> None:
        """TombolaError if a setting needs to know the training."""
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

    def _start(
        self, task: Task, model: nn.Module, seed: int, initial: Values, snapshot: Snapshot, spent: float
    ) -> Seed | Values:
        if self.rewind in KEEPS_WEIGHTS:
            return Values(tensors_of(model), "end", epochs_spent=spent)
        if self.rewind == "init":
            return Seed(seed, digest_of(initial.tensors))
        if self.rewind == "fresh":
            other = mixed(seed, 1)
            return Seed(other, digest_of(tensors_of(task.build(other))))
        return Values(snapshot.taken, self.rewind, snapshot.epochs_spent)
