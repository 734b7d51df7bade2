"""Gradual magnitude pruning: the smallest weights go little by little while the network trains."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.density_schedule import densities, scope_at
from tombola.methods.moving_mask import MovingMask, last_move
from tombola.methods.moving_watch import MovingWatch
from tombola.methods.own_loop import probe_on
from tombola.methods.protocol import DensityKind, kind_at
from tombola.methods.rewinding import End, as_trained
from tombola.scores import Forward, Inputs, Magnitude, forward
from tombola.structure import Granularity, Prunable, UnitMap, Weights, check_granularity, kept_share
from tombola.tickets import Mask, Optimizers, Scope, Seed, Ticket, TieWarning, digest_of, tensors_of
from tombola.training import Run, State, Task, length_of


@dataclass(frozen=True)
class Gradual:
    """Train the dense network, and remove its smallest weights little by little.

    Zhu & Gupta, To prune, or not to prune, arXiv 1710.01878, 2017.

    Args:
        density: the share of units to keep, above 0 and at most 1.
        granularity: what is removed together: weight, n:m, channel, …
        scope: how layers share the density: all units are ranked together (`global`), each layer keeps the same
            share (`layerwise`), or a density for each layer.
        count: in how many steps the density falls from 1, as a cubic: fast at first. They are spread evenly.
        until: the share of training after which nothing more is removed.
        rewind: what the ticket is: the network as it was trained (`end`), with no training left, or its mask on the
            initialisation (`init`).
        floor: units that each layer keeps at least.
        prunable: which parameters may be pruned.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> Gradual(density=0.05, rewind="init").density_kind
        'exact'
    """

    density: float = 0.1
    granularity: Granularity = Weights()
    scope: Scope = "global"
    count: int = 200
    until: float = 0.75
    rewind: End = "end"
    floor: int = 0
    prunable: Prunable = Prunable()

    def __post_init__(self) -> None:
        check_fields(self)
        check_granularity(self.granularity, self.density, self.scope)
        if self.count < 1:
            raise TombolaError(f"count is {self.count}; give how many times weights shall go, at least 1")
        if not 0 < self.until <= 1:
            raise TombolaError(f"until is {self.until}; give a share above 0 and at most 1")

    @property
    def density_kind(self) -> DensityKind:
        return kind_at(self.scope, self.granularity)

    def find(self, task: Task, run: Run) -> Ticket:
        steps = task.recipe.steps(length_of(task.batches("train", run.seed, 0)))
        if task.recipe.begin(steps) >= max(1, last_move(self.until, task.recipe, steps)):
            raise TombolaError(
                f"training starts at {task.recipe.start}, when all that shall go by {self.until:.0%} of "
                f"{task.recipe.epochs} epochs has to be gone; start earlier, or give a larger until"
            )
        model = task.build(run.seed)
        initial = digest_of(tensors_of(model))
        model.to(run.device)
        pruning = GradualPruning(self, run.units(self.granularity, task, model), model)
        fit = run.stage("search", task, model, attached=pruning.mask, observers=[pruning])
        if self.rewind == "init":
            return Ticket(pruning.mask, Seed(run.seed, initial), removed=pruning.removed)
        return replace(as_trained(model, pruning.mask, task.recipe, fit), removed=pruning.removed)

    def watch(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        *,
        steps: int,
        example: Inputs | None = None,
        forward: Forward = forward,
    ) -> MovingWatch:
        """Prune in your own training: its optimizer's steps remove the smallest weights.

        Args:
            model: the network that you train.
            optimizer: one that holds its parameters, or all of several in a list or a dictionary.
            steps: how many optimizer steps the training will take.
            example: inputs on which the network can be called, for units that are found by tracing, as channels.
            forward: how to call the model on inputs.

        Returns:
            The watch; its `ticket` is the network as it is trained now, or its mask on the initialisation.

        Raises:
            TombolaError: if the optimizer holds none of the weights, or the network cannot meet the density.

        Examples:
            >>> import torch
            >>> model, x = nn.Linear(10, 2), torch.ones(4, 10)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> watch = Gradual(density=0.25, count=3).watch(model, optimizer, steps=4)
            >>> for step in range(4):
            ...     optimizer.zero_grad()
            ...     model(x).square().mean().backward()
            ...     _ = optimizer.step()
            ...     print(watch.ticket.mask.total_kept)
            9
            6
            5
            5
            >>> watch.detach()
        """
        units = self.granularity.units(model, probe_on(example, forward))
        return MovingWatch(self, GradualPruning(self, units, model), model, optimizer, steps)


class GradualPruning(MovingMask):
    """Removes the smallest units of a network as the schedule says."""

    def __init__(self, settings: Gradual, units: UnitMap, model: nn.Module) -> None:
        self._settings, self.units = settings, units
        self._final = kept_share(units, settings.density)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TieWarning)
            self._choose(model, self._final, None)  # Refuses a density that cannot be met, before training.
        self.kept = self._choose(model, 1.0, None)
        super().__init__(units.expand(self.kept, tensors_of(model)))

    def after_step(self, state: State) -> None:
        end = max(1, last_move(self._settings.until, state.recipe, state.steps_per_epoch))
        count = min(self._settings.count, end)
        removals_before, removals = (min(step, end) * count // end for step in (state.step - 1, state.step))
        if removals > removals_before:
            self.kept = self._choose(state.model, densities(self._final, count, "cubic")[removals - 1], self.kept)
            self.move(self.units.expand(self.kept, tensors_of(state.model)), state)

    @property
    def removed(self) -> dict[str, tuple[int, ...]]:
        return self.units.removed(self.kept)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"kept": dict(self.kept)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.kept = Mask.of(state["kept"])

    def _choose(self, model: nn.Module, density: float, within: Mask | None) -> Mask:
        settings = self._settings
        scope, share = scope_at(settings.scope, density, self._final)
        scores = Magnitude()(model, prunable=settings.prunable)
        return self.units.choose(scores, share, scope=scope, within=within, floor=settings.floor)
