"""How many weights pruning methods need on the spiral at the study's settings (Zhang & Papyan, ICML 2024)."""

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
"""The accuracy of guessing: half of the points are of either class."""

STUDY = ("gradual", "imp", "rigl", "snip", "grasp", "iter-snip", "force", "synflow", "prospr")
"""The nine methods of the study."""


@dataclass(frozen=True)
class Pruning:
    """A grid of tickets: each method at each number of weights and each setting, several times.

    Args:
        methods: names of methods that keep exactly as many weights as they are asked for.
        requests: the numbers of weights to keep.
        width: of the three hidden layers; `WHOLE` has the study's whole grid.
        lrs: learning rates.
        schedules: each learning rate is tried with each of them.
        repeats: how often each ticket is searched, from different seeds.
        recipe: of the training; its learning rate and schedule stay as they are, as the settings replace them.

    Raises:
        TombolaError: if there is nothing to prune to, if more weights are asked for than the network has, or if a
            method does not keep exactly as many weights as it is asked for.

    Examples:
        >>> Pruning(("snip",), requests=(20,)).whole
        560
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
        total = self.whole
        for weights in self.requests:
            if not 0 < weights < total:
                raise TombolaError(f"{weights} weights are asked for; give numbers from 1 to {total - 1}")
        if not self.requests or self.repeats < 1:
            raise TombolaError("there is nothing to prune to: give at least one number of weights, and one repeat")
        for name in self.methods:
            pruner = as_studied(name, 0.5, Setting(0.1, "constant"))
            if blocks_removed(pruner) is not None or pruner.density_kind != "exact":
                raise TombolaError(f"'{name}' does not keep exactly as many weights as are asked for; give another")


def pruned(grid: Pruning, engine: Engine, budget: float = math.inf) -> list[Fewest]:
    """Find and train every method's tickets; the engine's store keeps finished ones, which are not trained again.

    Args:
        grid: which tickets.
        engine: the store, and what carries out the training.
        budget: seconds after which no ticket is begun.

    Returns:
        What became of each method's tickets, in the order of the grid's methods.
    """
    if not grid.methods:
        return []
    until = time.monotonic() + budget
    task = spiral_task(grid.widths, grid.recipe, of=grid.width)
    known = {"search": "pruned", "width": grid.width} | task_settings(task, 0, engine.executor.device)
    folder = engine.store.folder("pruned", known)
    by_method = []
    with folder.held():
        if engine.store.renews(folder):
            folder.clear()
        folder.begin(known)
        records = Records(folder.path / "tried.jsonl", Cell)
        with engine.executor.bars.track("methods", len(grid.methods)) as tick:
            for name in grid.methods:
                tickets = _asked(name, grid)
                new = [asked for asked in tickets if asked.key not in records.rows]
                for start in range(0, len(new), GROUP):
                    for cells in _cells(new[start : start + GROUP], task, engine, until):
                        records.add(cells)
                cells = tuple(records.rows[asked.key] for asked in tickets if asked.key in records.rows)
                by_method.append(Fewest(name, cells, len(tickets) - len(cells)))
                tick(name)
    warn_of_stale([cell.source for row in by_method for cell in row.cells])
    return by_method


def as_studied(name: str, density: float, setting: Setting) -> Method:
    """A method with the study's settings; its own defaults where the study names none.

    Args:
        name: the method's name.
        density: share of weights to keep.
        setting: learning rate and schedule; ProsPr looks ahead at this learning rate.
    """
    pruner = method(name, density=density)
    if name == "gradual":
        return Gradual(density, count=199, until=0.99)
    if name == "imp":
        return Iterative(density, count=4)
    if name in ("iter-snip", "force") and isinstance(pruner, OneShot):
        return replace(pruner, rounds=10)
    if name == "prospr":
        return OneShot(density, ProsPr(lr=setting.lr, momentum=0.9))
    return pruner


def with_biases(mask: Mask) -> Mask:
    """Add the biases to a mask of weights: a hidden bias goes if no weight leaves its unit, the output's stays."""
    kept: dict[str, Tensor] = {}
    for layer, following in zip(LAYERS, (*LAYERS[1:], None), strict=True):
        weight = mask[f"{layer}.weight"]
        kept[f"{layer}.weight"] = weight
        kept[f"{layer}.bias"] = mask[f"{following}.weight"].any(0) if following else weight.new_ones(len(weight))
    return Mask.of(kept, mask.ties)


def _asked(name: str, grid: Pruning) -> list[Asked]:
    """The tickets of one method; every method and every number of weights has the same seeds."""
    tried = settings(grid.lrs, grid.schedules)
    return [
        Asked(name, as_studied(name, weights / grid.whole, setting), weights, setting, repeat, repeat * len(tried) + i)
        for weights, (i, setting), repeat in product(grid.requests, enumerate(tried), range(grid.repeats))
    ]


def _cells(group: Sequence[Asked], task: SupervisedTask, engine: Engine, until: float) -> Iterator[list[Cell]]:
    """Find and train the tickets of one method, and give cells as they are finished; none is begun after `until`.

    Tickets are found one by one, on every core. Those that start from their initialisation are then trained together,
    even if the time is over.
    """
    if group[0].name == "imp":
        if time.monotonic() < until:
            yield _iterated(task, group, engine)
        return
    masks: dict[Hashable, Mask] = {}
    in_time = takewhile(lambda _: time.monotonic() < until, group)
    work = partial(_found, task=task, device=engine.executor.device)
    with engine.executor.bars.track(group[0].name, len(group)) as tick:
        for asked, cell_or_mask in on_cores(cores_for(engine.executor.device), work, in_time):
            if isinstance(cell_or_mask, Cell):
                yield [cell_or_mask]
            else:
                masks[asked.key] = cell_or_mask
            tick("tickets")
    untrained = [asked for asked in group if asked.key in masks]
    if untrained:
        full_masks = [with_biases(masks[asked.key]) for asked in untrained]
        runs = _trained_together(task, full_masks, untrained, engine)
        yield [
            asked.kept(mask, CHANCE if _diverged(trained) else trained.metric)
            for asked, mask, trained in zip(untrained, full_masks, runs, strict=True)
        ]


def _found(asked: Asked, task: SupervisedTask, device: torch.device) -> tuple[Asked, Cell | Mask]:
    """Search one ticket: its mask if it starts from its initialisation, else the cell of its further training."""
    task = _with_setting(task, asked.setting)
    try:
        ticket = find(task, asked.method, run=Run(asked.seed, device=device))
        if isinstance(ticket.start, Seed):
            return asked, ticket.mask
        trained = train(task, ticket, seed=asked.seed, run=Run(asked.seed, device=device))
    except (Diverged, ScoresNaN):
        return asked, asked.cell(asked.weights, asked.weights, CHANCE)
    return asked, asked.kept(with_biases(ticket.mask), trained.metric)


def _iterated(task: SupervisedTask, group: Sequence[Asked], engine: Engine) -> list[Cell]:
    """Iterative pruning of many networks at once, by the rounds of `Iterative`.

    A network that diverges is pruned by the values it started from, and counts as guessing.
    """
    rounds = [asked.method.rounds(task.build(asked.seed)) for asked in group]  # ty: ignore[missing-attribute]
    cells, diverged = [], set()
    for current in zip(*rounds, strict=True):
        masks = [with_biases(round_.mask) for round_ in current]
        runs = _trained_together(task, masks, group, engine)
        for asked, round_, trained in zip(group, current, runs, strict=True):
            if _diverged(trained):
                diverged.add(asked.key)
            else:
                put_values(round_.model, tensors_of(trained.model))
        cells = [
            asked.kept(mask, CHANCE if asked.key in diverged else trained.metric)
            for asked, mask, trained in zip(group, masks, runs, strict=True)
        ]
    return cells


def _trained_together(
    task: SupervisedTask, masks: Sequence[Mask], group: Sequence[Asked], engine: Engine
) -> list[Trained]:
    """Train masks of weights and biases from their seeds' initialisations."""
    members = [
        Member(asked.seed, mask, recipe={"lr": asked.setting.lr, "schedule": asked.setting.schedule})
        for asked, mask in zip(group, masks, strict=True)
    ]
    return train_together(task, members, run=Run(device=engine.executor.device, bars=engine.executor.bars))


def _diverged(trained: Trained) -> bool:
    """Whether a loss or a value after the last step is not a finite number; no loss is taken after that step."""
    return bool(trained.diverged) or not all(value.isfinite().all() for value in trained.model.parameters())


def _with_setting(task: SupervisedTask, setting: Setting) -> SupervisedTask:
    return replace(task, recipe=replace(task.recipe, lr=setting.lr, schedule=setting.schedule))
