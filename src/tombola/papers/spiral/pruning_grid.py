"""How many weights pruning methods need on the spiral at the study's settings, by those that they really keep."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product, takewhile

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.methods import Gradual, Iterative, Method, OneShot, blocks_removed, find, method
from tombola.papers.spiral.pruned_cells import Asked, Cell, Fewest
from tombola.papers.spiral.search_records import Records
from tombola.papers.spiral.spiral_runs import RECIPE, SCHEDULES, Schedule, Setting, check_recipe, settings, spiral_task
from tombola.papers.spiral.structures import LAYERS, Structure, Widths
from tombola.scores import ProsPr
from tombola.studies.core_pool import cores_for, on_cores
from tombola.studies.execution import warn_of_stale
from tombola.studies.executor import Engine
from tombola.studies.spec import task_settings
from tombola.tickets import Mask, ScoresNaN, Seed, put_values, tensors_of
from tombola.training import (
    Diverged,
    Member,
    Recipe,
    Run,
    SupervisedTask,
    Trained,
    train,
    train_together,
)

GROUP = 120
"""How many tickets are trained together."""

CHANCE = 0.5
"""The share of the points that guessing has right: half of them are of either class."""

STUDY = ("gradual", "imp", "rigl", "snip", "grasp", "iter-snip", "force", "synflow", "prospr")
"""The study's nine."""


@dataclass(frozen=True)
class Pruning:
    """A grid of tickets: each method at each number of weights asked for and each setting, so often.

    width: of the three hidden layers; the study's whole grid is in `WHOLE`.
    """

    methods: tuple[str, ...] = ()
    requests: tuple[int, ...] = (18, 22, 26, 30, 37, 44, 53, 65)
    width: int = 16
    lrs: tuple[float, ...] = (0.05, 0.1, 0.2)
    schedules: tuple[Schedule, ...] = SCHEDULES
    repeats: int = 1
    recipe: Recipe = RECIPE

    @property
    def widths(self) -> Widths:
        return self.width, self.width, self.width

    @property
    def whole(self) -> int:
        """Weights of the network before any is removed."""
        return Structure(self.widths).weights

    def __post_init__(self) -> None:
        check_recipe(self.recipe)
        whole = self.whole
        for asked in self.requests:
            if not 0 < asked < whole:
                raise TombolaError(f"{asked} weights are asked for; give numbers from 1 to {whole - 1}")
        if not self.requests or self.repeats < 1:
            raise TombolaError("there is nothing to prune to: give at least one number of weights, and one repeat")
        for name in self.methods:
            own = as_studied(name, 0.5, Setting(0.1, "constant"))
            if blocks_removed(own) is not None or own.density_kind != "exact":
                raise TombolaError(f"'{name}' does not keep exactly as many weights as are asked for; give another")


def pruned(grid: Pruning, engine: Engine, budget: float = math.inf) -> list[Fewest]:
    """Every method's tickets, trained; finished ones are kept in the engine's store and not trained again.

    budget: seconds after which no ticket is begun.
    """
    if not grid.methods:
        return []
    until = time.monotonic() + budget
    task = spiral_task(grid.widths, grid.recipe, of=grid.width)
    known = {"search": "pruned", "width": grid.width} | task_settings(task, 0, engine.executor.device)
    folder = engine.store.folder("pruned", known)
    done = []
    with folder.held():
        folder.begin(known, anew=engine.store.renews(folder))
        records = Records(folder.path / "tried.jsonl", Cell)
        with engine.executor.bars.track("methods", len(grid.methods)) as tick:
            for name in grid.methods:
                whole = _asked(name, grid)
                new = [own for own in whole if own.key not in records.rows]
                for start in range(0, len(new), GROUP):
                    for cells in _cells(new[start : start + GROUP], task, engine, until):
                        records.add(cells)
                cells = tuple(records.rows[own.key] for own in whole if own.key in records.rows)
                done.append(Fewest(name, cells, len(whole) - len(cells)))
                tick(name)
    warn_of_stale([cell.source for own in done for cell in own.cells])
    return done


def as_studied(name: str, density: float, setting: Setting) -> Method:
    """A method by its name with the study's settings; where the study says nothing its own."""
    own = method(name, density=density)
    if name == "gradual":
        return Gradual(density, count=199, until=0.99)
    if name == "imp":
        return Iterative(density, count=4)
    if name in ("iter-snip", "force") and isinstance(own, OneShot):
        return replace(own, rounds=10)
    if name == "prospr":
        return OneShot(density, ProsPr(lr=setting.lr, momentum=0.9))
    return own


def with_biases(mask: Mask) -> Mask:
    """A mask of the weights with the biases that go with them: a hidden one where all weights out of its unit go."""
    kept: dict[str, Tensor] = {}
    for layer, following in zip(LAYERS, (*LAYERS[1:], None), strict=True):
        weight = mask[f"{layer}.weight"]
        kept[f"{layer}.weight"] = weight
        kept[f"{layer}.bias"] = mask[f"{following}.weight"].any(0) if following else weight.new_ones(len(weight))
    return Mask.of(kept, mask.ties)


def _asked(name: str, grid: Pruning) -> list[Asked]:
    """The tickets of one method; the same seeds for every method and number of weights."""
    tried = settings(grid.lrs, grid.schedules)
    return [
        Asked(name, as_studied(name, weights / grid.whole, own), weights, own, repeat, repeat * len(tried) + place)
        for weights, (place, own), repeat in product(grid.requests, enumerate(tried), range(grid.repeats))
    ]


def _cells(part: Sequence[Asked], task: SupervisedTask, engine: Engine, until: float) -> Iterator[list[Cell]]:
    """Find the tickets of one method and train them; cells as they are finished, no ticket is begun after `until`.

    Each is found by itself, on every core. Those that start from their initialisation are then trained together, even
    if the time is over by that.
    """
    if part[0].name == "imp":
        if time.monotonic() < until:
            yield _iterated(task, part, engine)
        return
    masks: dict[Hashable, Mask] = {}
    in_time = takewhile(lambda _: time.monotonic() < until, part)
    work = partial(_found, task=task, device=engine.executor.device)
    with engine.executor.bars.track(part[0].name, len(part)) as tick:
        for asked, found in on_cores(cores_for(engine.executor.device), work, in_time):
            if isinstance(found, Cell):
                yield [found]
            else:
                masks[asked.key] = found
            tick("tickets")
    own = [asked for asked in part if asked.key in masks]
    whole = [with_biases(masks[asked.key]) for asked in own]
    if own:
        yield [
            asked.kept(mask, CHANCE if _diverged(trained) else trained.metric)
            for asked, mask, trained in zip(own, whole, _together(task, whole, own, engine), strict=True)
        ]


def _found(asked: Asked, task: SupervisedTask, device: torch.device) -> tuple[Asked, Cell | Mask]:
    """The mask of a ticket of the initialisation; of one that its search has trained, what it comes to."""
    own = _at(task, asked.setting)
    try:
        ticket = find(own, asked.method, run=Run(asked.seed, device=device))
        if isinstance(ticket.start, Seed):
            return asked, ticket.mask
        trained = train(own, ticket, seed=asked.seed, run=Run(asked.seed, device=device))
    except (Diverged, ScoresNaN):
        return asked, asked.cell(asked.weights, asked.weights, CHANCE)
    return asked, asked.kept(with_biases(ticket.mask), trained.metric)


def _iterated(task: SupervisedTask, part: Sequence[Asked], engine: Engine) -> list[Cell]:
    """Iterative pruning of many networks at once, by the rounds of `Iterative`.

    One that diverges is pruned by the values it started from, and counts as guessing.
    """
    rounds = [asked.method.rounds(task.build(asked.seed)) for asked in part]  # ty: ignore[missing-attribute]
    cells, lost = [], set()
    for going in zip(*rounds, strict=True):
        masks = [with_biases(own.mask) for own in going]
        done = _together(task, masks, part, engine)
        for asked, own, trained in zip(part, going, done, strict=True):
            if _diverged(trained):
                lost.add(asked.key)
            else:
                put_values(own.model, tensors_of(trained.model))
        cells = [
            asked.kept(mask, CHANCE if asked.key in lost else trained.metric)
            for asked, mask, trained in zip(part, masks, done, strict=True)
        ]
    return cells


def _together(task: SupervisedTask, masks: Sequence[Mask], part: Sequence[Asked], engine: Engine) -> list[Trained]:
    """Train masks of weights and biases from their seeds' initialisations."""
    members = [
        Member(asked.seed, mask, recipe={"lr": asked.setting.lr, "schedule": asked.setting.schedule})
        for asked, mask in zip(part, masks, strict=True)
    ]
    return train_together(task, members, run=Run(device=engine.executor.device, bars=engine.executor.bars))


def _diverged(trained: Trained) -> bool:
    """Whether a loss, or what the last step left, is no number."""
    return bool(trained.diverged) or not all(own.isfinite().all() for own in trained.model.parameters())


def _at(task: SupervisedTask, setting: Setting) -> SupervisedTask:
    return replace(task, recipe=replace(task.recipe, lr=setting.lr, schedule=setting.schedule))
