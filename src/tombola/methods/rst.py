"""Dual lottery tickets: a random ticket is chosen first, and the network is transformed until it can be trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.methods.density_schedule import densities, scope_at
from tombola.methods.growing_penalty import Extrusion, GrowingPenalty
from tombola.methods.own_loop import probe_on
from tombola.methods.protocol import DensityKind, kind_at
from tombola.methods.rewinding import check_rewind
from tombola.methods.rst_watch import RstWatch
from tombola.scores import Forward, Inputs, Magnitude, Random, Scores, as_summed, forward
from tombola.structure import Granularity, Prunable, UnitMap, Weights, check_granularity, kept_share
from tombola.tickets import (
    Mask,
    Optimizers,
    Provenance,
    Scope,
    Seed,
    Ticket,
    Values,
    attach,
    check_fits,
    parameters_of,
    put_values,
    tensors_of,
)
from tombola.training import Observer, Recipe, Run, Snapshot, Step, Task, TaskWrapper, length_of, with_recipe

Pick = Literal["random", "min", "max"]


@dataclass(frozen=True)
class RST(GrowingPenalty):
    """Choose a ticket at random, and let a growing penalty press what the network knows into it.

    Random Sparse Network Transformation (Bai, Wang, Tao, Li, Fu, Dual Lottery Ticket Hypothesis, ICLR 2022). The whole
    network trains, while the weights that shall go are pulled to 0 more and more. The settings of `GrowingPenalty` say
    how.

    Args:
        granularity: what is removed together: weight, channel, …
        scope: how layers share the density, as `layerwise`, `erk` or `smart-ratio`.
        mask: any mask or ticket to transform the network for, in place of a random one. Its density counts.
        pick: what is dropped: units at random, as in the paper, or the smallest (`min`, the published code's default)
            or largest ones of the untrained network.
        cycles: in how many cycles the ticket is transformed (RST-Iter); or the densities of all cycles but the last. In
            each, λ begins anew, and so does the optimizer.
        old: which units a later cycle drops in place of those that an earlier one dropped: the same (`kept`), as in the
            paper; or as many of the smallest ones (`smallest`), as in the code.
        delete: whether what a cycle dropped is zero from its end on.
        lr: the learning rate, which stays the same; a tenth of the recipe's if None. The published one is 0.001.
        batch: samples a step; the recipe's if None.
        rewind: what the ticket trains from: the transformed weights (`end`), the initialisation (`init`), or those of
            a step of the transformation, as "500it".
        floor: units that each layer keeps at least.
        prunable: which parameters may be pruned.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> [round(density, 3) for density in RST(density=0.1, cycles=5).levels(0.1)]
        [0.631, 0.398, 0.251, 0.158, 0.1]
    """

    granularity: Granularity = Weights()
    scope: Scope = "layerwise"
    mask: Mask | Ticket | None = None
    pick: Pick = "random"
    cycles: int | tuple[float, ...] = 1
    old: Literal["kept", "smallest"] = "kept"
    delete: bool = False
    lr: float | None = None
    batch: int | None = None
    rewind: str = "end"
    floor: int = 0
    prunable: Prunable = Prunable()

    continues: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_granularity(self.granularity, self.density, self.scope)
        if self.rewind != "end":
            check_rewind(self.rewind)
            if self.rewind in ("fresh", "learning-rate", "fine-tune"):
                raise TombolaError(f"rewind is '{self.rewind}'; give 'end', 'init' or a step as '500it'")
        if isinstance(self.cycles, int) and self.cycles < 1:
            raise TombolaError(f"cycles is {self.cycles}; give at least 1, or densities as (0.6, 0.4)")
        for name in ("lr", "batch"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise TombolaError(f"{name} is {value}; give a number above 0")
        if self.mask is not None:
            self._take_density(self.mask.density)
        self.levels(self.density)

    def _take_density(self, given: float) -> None:
        if self.density not in (GrowingPenalty.density, given):
            raise TombolaError(
                f"density is {self.density:g}, but the mask that is given keeps {given:g}; leave the density out"
            )
        if self.old == "smallest":
            raise TombolaError("a mask that is given stays the same in all cycles; give old='kept'")
        object.__setattr__(self, "density", given)

    @property
    def density_kind(self) -> DensityKind:
        return "outcome" if self.mask is not None else kind_at(self.scope, self.granularity)

    def levels(self, final: float) -> list[float]:
        """The density of each cycle; final: that of the last."""
        if isinstance(self.cycles, int):
            return densities(final, self.cycles)
        levels = [*self.cycles, final]
        if any(not 0 < later <= earlier <= 1 for earlier, later in pairwise(levels)):
            raise TombolaError(f"the densities of the cycles are {levels}; let them fall from at most 1 to the last")
        return levels

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        initial = Seed.of(model, run.seed)
        model.to(run.device)
        transforming = self._task(task)
        steps = transforming.recipe.steps(length_of(transforming.batches("train", run.seed, 0)))
        ramp = self.ramp_in(steps, task.recipe.epochs, _dtype_of(model))
        recipe = self._recipe(task.recipe, math.ceil(ramp.steps / steps))
        snapshot = None if self.rewind in ("end", "init") else Snapshot(Step.parse(self.rewind))
        if snapshot is not None and snapshot.at.iterations(steps) > ramp.steps:
            raise TombolaError(
                f"rewind is {self.rewind}, and a cycle of the transformation takes {ramp.steps} steps; give an earlier "
                "step, or lengthen ramp or hold"
            )
        choice = _Choice(self, task, run, model)
        before: Mask | None = None
        with run.bars.track("cycles", len(choice.levels)) as tick:
            for cycle in range(len(choice.levels)):
                mask = choice.next()
                extrusion = Extrusion(mask, model, ramp)
                observers: list[Observer] = [extrusion, *([snapshot] if snapshot and cycle == 0 else [])]
                attached = before if self.delete else None
                run.stage(
                    f"cycle-{cycle:02d}", transforming, model, recipe=recipe, attached=attached, observers=observers
                )
                put_values(model, extrusion.values)
                if self.delete:
                    attach(mask, model).detach()  # Attaching zeroes what is dropped.
                before = mask
                tick(f"density {mask.density:.3g}, {extrusion.removed_norm:.2%} of the norm in what goes")
        assert before is not None
        whole = run.validate(task, model, task.recipe)
        values = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
        attach(before, model).detach()
        provenance = Provenance(whole=whole, before=run.validate(task, model, task.recipe))
        spent = len(choice.levels) * ramp.steps / steps
        start: Seed | Values = Values(values, "transformed", spent)
        if snapshot is not None:
            start = Values(snapshot.taken, self.rewind, snapshot.epochs_spent)
        elif self.rewind == "init":
            start = initial
        return Ticket(before, start, removed=choice.removed, provenance=provenance)

    def watch(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        *,
        steps: int,
        example: Inputs | None = None,
        forward: Forward = forward,
        seed: int = 0,
    ) -> RstWatch:
        """Transform the network in your own training: its optimizer's steps get the penalty.

        Your optimizer keeps its own learning rate; give it the one that you want for the transformation. When a cycle
        ends, the optimizer's state is cleared.

        Args:
            model: the network that you train.
            optimizer: one that holds its parameters, or all of several in a list or a dictionary.
            steps: how many optimizer steps your training will take, of which lengths may be shares.
            example: inputs on which the network can be called, for units that are found by tracing, as channels.
            forward: how to call the model on inputs.
            seed: of the random ticket.

        Returns:
            The watch. It has `finished` once the transformation has come to its end, and `ticket`.

        Raises:
            TombolaError: if the optimizer holds none of the weights, a length counts epochs, or the mask is another
                network's.

        Examples:
            >>> model, x = nn.Linear(10, 2), torch.ones(4, 10)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> watch = RST(density=0.25, ramp="4it", hold="2it").watch(model, optimizer, steps=20)
            >>> for step in range(20):
            ...     optimizer.zero_grad()
            ...     model(x).square().mean().backward()
            ...     _ = optimizer.step()
            ...     if watch.finished:
            ...         break
            >>> step, watch.ticket.mask.total_kept
            (5, 5)
            >>> watch.detach()
        """
        choice = _Choice(self, None, Run(seed), model, example, forward)
        return RstWatch(self, choice, model, optimizer, steps, _dtype_of(model), self.delete)

    def _task(self, task: Task) -> Task:
        """What trains in the transformation: the task with batches of the method's size, and no schedule of its own."""
        recipe = task.recipe if self.batch is None else replace(task.recipe, batch=self.batch)
        return _Unscheduled(with_recipe(task, recipe) if recipe != task.recipe else task)

    def _recipe(self, own: Recipe, epochs: int) -> Recipe:
        lr = own.lr / 10 if self.lr is None else self.lr
        constant: dict[str, Any] = {"schedule": "constant", "warmup": 0.0, "start": "0it", "ema": 0.0}
        return replace(own, epochs=epochs, lr=lr, batch=self.batch or own.batch, **constant)


@dataclass(frozen=True)
class _Unscheduled(TaskWrapper):
    """A task at one learning rate."""

    scheduler: ClassVar[None] = None


class _Choice:
    """The mask of each cycle, one after the other.

    task: None in somebody's own loop, where `example` and `forward` say how the network is called.
    """

    def __init__(
        self,
        settings: RST,
        task: Task | None,
        run: Run,
        model: nn.Module,
        example: Inputs | None = None,
        forward: Forward = forward,
    ) -> None:
        self._settings, self._run, self._model = settings, run, model
        probe = probe_on(example, forward) if task is None else run.probe(task)
        given = settings.mask
        self._given = given.mask if isinstance(given, Ticket) else given
        self._removed = dict(given.removed) if isinstance(given, Ticket) else {}
        if self._given is not None:
            check_fits(self._given, parameters_of(model))
        self._units: UnitMap = Weights().units(model, probe)
        if self._given is None:
            own = settings.granularity
            self._units = own.units(model, probe) if task is None else run.units(own, task, model)
        self._score = as_summed(Random(), settings.granularity, model, probe)
        self._final = settings.density if self._given is not None else kept_share(self._units, settings.density)
        self.levels = settings.levels(self._final)
        self._random = self._scores(self._score)
        self.kept: list[Mask] = []

    @property
    def removed(self) -> dict[str, tuple[int, ...]]:
        """The units that the last mask drops, where they are more than single weights."""
        return self._removed if self._given is not None else self._units.removed(self.kept[-1])

    def next(self) -> Mask:
        """The mask of the next cycle, for the network as it is now."""
        density = self.levels[len(self.kept)]
        if self._given is not None:
            kept = self._around_given(density)
        else:
            scope, share = scope_at(self._settings.scope, density, self._final)
            floor, within = self._settings.floor, self._within()
            kept = self._units.choose(self._worth(), share, scope=scope, within=within, floor=floor)
        self.kept.append(kept)
        return self.mask

    @property
    def mask(self) -> Mask:
        """The mask of the cycle of now."""
        return self._units.expand(self.kept[-1], tensors_of(self._model))

    @property
    def before(self) -> Mask:
        """The mask of the cycle before."""
        return self._units.expand(self.kept[-2], tensors_of(self._model))

    def _around_given(self, density: float) -> Mask:
        """What an earlier cycle keeps of a given mask: all of it, and others at random."""
        given = self._given
        assert given is not None
        if len(self.kept) == len(self.levels) - 1:
            return given
        parameters = parameters_of(self._model)
        random = {name: self._random.get(name, torch.zeros(parameters[name].shape)) for name in given}
        scores = {name: torch.where(given[name], 2.0, random[name].cpu()) for name in given}
        of_layers = {name: count / given.bits[name].size for name, count in given.counts.items()}
        scope, share = scope_at(of_layers, density, self._final)
        return self._units.choose(
            scores, share, scope=scope, within=self.kept[-1] if self.kept else None, floor=self._settings.floor
        )

    def _worth(self) -> Scores:
        if self._settings.pick == "random":
            return self._random
        sizes = self._scores(Magnitude())
        return sizes if self._settings.pick == "min" else {name: -size for name, size in sizes.items()}

    def _within(self) -> Mask | None:
        """What an earlier cycle kept, or as many of the largest units of now."""
        if not self.kept or self._settings.old == "kept":
            return self.kept[-1] if self.kept else None
        counts = self.kept[-1].bits
        scope = {name: bits.kept / bits.size for name, bits in counts.items()}
        return self._units.choose(self._scores(Magnitude()), None, scope=scope, within=None, floor=0)

    def _scores(self, score: Any) -> Scores:
        return score(self._model, prunable=self._settings.prunable, seed=self._run.seed)


def _dtype_of(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
