"""How many weights pruning methods need on the spiral at the study's settings, by those that they really keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.methods import Gradual, Iterative, Method, OneShot, blocks_removed, find, method
from tombola.methods.schedule import densities
from tombola.scores import ProsPr
from tombola.structure import prunable
from tombola.studies.cores import cores_for, on_cores
from tombola.studies.prepare import Engine
from tombola.studies.sparsest.records import Records
from tombola.studies.sparsest.runs import RECIPE, SCHEDULES, Schedule, Setting, settings, spiral_task
from tombola.studies.sparsest.structures import LAYERS, Structure, Widths
from tombola.studies.spec import task_settings
from tombola.tickets import Mask, Seed, Ticket, select
from tombola.training import Member, Recipe, Run, SupervisedTask, train, train_together

GROUP, STUDIED_ROUNDS = 120, 4
"""How many tickets are trained together, and in how many rounds the study prunes iteratively."""

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


@dataclass(frozen=True)
class Cell:
    """One ticket and what came of it: asked, kept weights, kept weights and biases, accuracy."""

    method: str
    asked: int
    setting: str
    repeat: int
    weights: int
    size: int
    accuracy: float

    @property
    def key(self) -> tuple[str, int, str, int]:
        return self.method, self.asked, self.setting, self.repeat


@dataclass(frozen=True)
class Fewest:
    """What became of one method's tickets."""

    method: str
    cells: tuple[Cell, ...]

    def reaching(self, accuracy: float) -> Cell | None:
        """The ticket of the fewest weights that reached an accuracy."""
        hits = [cell for cell in self.cells if cell.accuracy >= accuracy]
        return min(hits, key=lambda own: (own.weights, own.size), default=None)

    @property
    def best(self) -> float:
        return max(cell.accuracy for cell in self.cells)

    def to_json(self, accuracy: float) -> dict[str, Any]:
        found = self.reaching(accuracy)
        fewest = {"weights": found.weights, "size": found.size} if found else None
        return {"method": self.method, "runs": len(self.cells), "best": self.best, "fewest": fewest}


def pruned(grid: Pruning, engine: Engine) -> list[Fewest]:
    """Every method's tickets, trained; finished ones are kept in the engine's store and not trained again."""
    if not grid.methods:
        return []
    task = spiral_task(grid.widths, grid.recipe, of=grid.width)
    identity = {"search": "pruned", "width": grid.width} | task_settings(task, 0, engine.device)
    folder = engine.store.folder("pruned", identity)
    with folder.locked():
        engine.begin(folder, identity)
        records = Records(folder.path / "tried.jsonl", Cell)
        whole = list(product(grid.requests, settings(grid.lrs, grid.schedules), range(grid.repeats)))
        with engine.bars.track("methods", len(grid.methods)) as tick:
            for name in grid.methods:
                new = [own for own in whole if (name, own[0], own[1].name, own[2]) not in records.rows]
                for part in (new[start : start + GROUP] for start in range(0, len(new), GROUP)):
                    records.add(_cells(name, part, grid, task, engine))
                tick(name)
        keys = {name: [(name, asked, own.name, repeat) for asked, own, repeat in whole] for name in grid.methods}
        return [Fewest(name, tuple(records.rows[key] for key in own)) for name, own in keys.items()]


def as_studied(name: str, density: float, setting: Setting) -> Method:
    """A method by its name with the study's settings; where the study says nothing its own."""
    own = method(name, density=density)
    if name == "gradual":
        return Gradual(density, count=199, until=0.99)
    if name == "imp":
        return Iterative(density, count=STUDIED_ROUNDS)
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


Part = Sequence[tuple[int, Setting, int]]
"""Weights asked for, setting and repeat of some tickets."""


def _cells(name: str, part: Part, grid: Pruning, task: SupervisedTask, engine: Engine) -> list[Cell]:
    """Find the tickets of one method and train them; the same seeds for every method and number of weights."""
    tried = settings(grid.lrs, grid.schedules)
    seeds = [repeat * len(tried) + tried.index(setting) for _, setting, repeat in part]
    methods = [as_studied(name, asked / grid.whole, setting) for asked, setting, _ in part]
    if name == "imp":
        trained = _iterated(task, methods, part, seeds, engine)
    else:
        asked = [
            Asked(place, own, seed, setting)
            for place, (own, seed, (_, setting, _)) in enumerate(zip(methods, seeds, part, strict=True))
        ]
        trained = _trained(task, _found(name, asked, task, engine), part, seeds, engine)
    return [
        Cell(name, asked, setting.name, repeat, *_sizes(mask), metric)
        for (asked, setting, repeat), (mask, metric) in zip(part, trained, strict=True)
    ]


@dataclass(frozen=True)
class Asked:
    """A ticket to be found: which of how many it is, by what, from which seed and at which setting."""

    place: int
    method: Method
    seed: int
    setting: Setting


def _found(name: str, asked: Sequence[Asked], task: SupervisedTask, engine: Engine) -> list[Ticket]:
    """Tickets in the order in which they are asked for, each found by itself, on every core."""
    tickets: dict[int, Ticket] = {}
    work = partial(_ticket, task=task, device=engine.device)
    with engine.bars.track(name, len(asked)) as tick:
        for place, ticket in on_cores(cores_for(engine.device), work, asked):
            tickets[place] = ticket
            tick("tickets")
    return [tickets[place] for place in range(len(asked))]


def _ticket(asked: Asked, task: SupervisedTask, device: torch.device) -> tuple[int, Ticket]:
    return asked.place, find(_at(task, asked.setting), asked.method, run=Run(asked.seed, device=device))


Tickets = list[tuple[Mask, float]]
"""Masks, and the accuracies that their networks reached."""


def _trained(
    task: SupervisedTask, tickets: Sequence[Ticket], part: Part, seeds: Sequence[int], engine: Engine
) -> Tickets:
    """What tickets come to: those of the initialisation trained together, what their search has trained measured."""
    if all(isinstance(ticket.start, Seed) for ticket in tickets):
        return _together(task, [ticket.mask for ticket in tickets], part, seeds, engine)[0]
    return [
        (
            with_biases(ticket.mask),
            train(_at(task, own), ticket, seed=seed, run=Run(seed, device=engine.device)).metric,
        )
        for ticket, (_, own, _), seed in zip(tickets, part, seeds, strict=True)
    ]


def _iterated(
    task: SupervisedTask, methods: Sequence[Method], part: Part, seeds: Sequence[int], engine: Engine
) -> Tickets:
    """Iterative magnitude pruning of many networks at once, each rewound to its initialisation, as `Iterative` does."""
    rounds = STUDIED_ROUNDS
    masks: list[Mask] = [Mask.full(prunable(task.build(0)))] * len(part)
    for index in range(rounds):
        _, models = _together(task, masks, part, seeds, engine)
        levels = [densities(own.density, rounds)[index] for own in methods]
        masks = [
            select({name: weight.abs() for name, weight in prunable(model).items()}, level, within=mask)
            for model, level, mask in zip(models, levels, masks, strict=True)
        ]
    return _together(task, masks, part, seeds, engine)[0]


def _together(
    task: SupervisedTask, masks: Sequence[Mask], part: Part, seeds: Sequence[int], engine: Engine
) -> tuple[Tickets, list[nn.Module]]:
    """Train masks from their seeds' initialisations; with each mask its accuracy, and the networks."""
    whole = [with_biases(mask) for mask in masks]
    members = [
        Member(seed, mask, recipe={"lr": setting.lr, "schedule": setting.schedule})
        for mask, seed, (_, setting, _) in zip(whole, seeds, part, strict=True)
    ]
    done = train_together(task, members, run=Run(device=engine.device, bars=engine.bars, meter=engine.meter))
    return [(mask, own.metric) for mask, own in zip(whole, done, strict=True)], [own.model for own in done]


def _at(task: SupervisedTask, setting: Setting) -> SupervisedTask:
    return replace(task, recipe=replace(task.recipe, lr=setting.lr, schedule=setting.schedule))


def _sizes(mask: Mask) -> tuple[int, int]:
    """Weights; weights and biases."""
    return sum(mask.kept(f"{layer}.weight") for layer in LAYERS), mask.total_kept
