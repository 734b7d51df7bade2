"""Runs of the spiral's networks: on what, at which settings, from which initialisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Literal

from torch import Tensor

from tombola import zoo
from tombola.errors import TombolaError
from tombola.papers.spiral.structures import Structure, Widths
from tombola.studies.tasks import RECIPES
from tombola.training import Member, Recipe, SupervisedTask, Trained, binary_accuracy, binary_cross_entropy

Schedule = Literal["cosine-by-epoch", "multistep", "constant"]
SCHEDULES: tuple[Schedule, ...] = ("cosine-by-epoch", "multistep", "constant")
RECIPE = RECIPES["cubist-spiral"]

Trainer = Callable[[SupervisedTask, Sequence[Member]], list[Trained]]
"""Trains networks of one architecture, each as if it were alone."""


@dataclass(frozen=True)
class Setting:
    """How a network is trained where the study tries several ways."""

    lr: float
    schedule: Schedule

    @property
    def name(self) -> str:
        return f"{self.lr:g} {self.schedule}"


def settings(lrs: Sequence[float], schedules: Sequence[Schedule] = SCHEDULES) -> tuple[Setting, ...]:
    """Every learning rate with every schedule; TombolaError if there is none."""
    if not lrs or not schedules:
        raise TombolaError("there is nothing to try: give at least one learning rate and one schedule")
    return tuple(Setting(lr, schedule) for lr, schedule in product(lrs, schedules))


def check_recipe(recipe: Recipe) -> None:
    """TombolaError for what each setting replaces anyway."""
    if (recipe.lr, recipe.schedule) != (RECIPE.lr, RECIPE.schedule):
        raise TombolaError(
            "every run has a learning rate and a schedule of the study's; leave --recipe.lr and --recipe.schedule out, "
            "or in Python give lrs and schedules"
        )


def spiral_task(widths: Widths, recipe: Recipe = RECIPE, of: int = zoo.SPIRAL_WIDTH) -> SupervisedTask:
    """The Cubist Spiral for the top-left block of these widths of the study's network.

    As in the study accuracy is that on all points, which are trained on; it is measured at the end alone.
    """
    inputs, targets = _points()
    return SupervisedTask(
        partial(zoo.spiral_block, widths, of),
        {"train": (inputs, targets), "validation": (inputs[:0], targets[:0]), "test": (inputs, targets)},
        loss=binary_cross_entropy,
        recipe=recipe,
        metric=binary_accuracy,
    )


@cache
def _points() -> tuple[Tensor, Tensor]:
    return zoo.data("cubist-spiral")["train"]


def inside(structures: Sequence[Structure]) -> Widths:
    """The widths of the smallest network that has all of these structures in its top-left blocks."""
    first, second, third = (max(own) for own in zip(*(structure.widths for structure in structures), strict=True))
    return first, second, third


def members(
    structure: Structure, widths: Widths, seed: int, tried: Sequence[Setting], init: int | None = None
) -> list[Member]:
    """A structure inside a network of these widths once at each setting, each with a seed of its own.

    seed: how many times this was done before; init: the one initialisation from which all train, their own if None.
    """
    mask = structure.mask(widths)
    return [
        Member(
            seed * len(tried) + index,
            mask,
            init_seed=init,
            recipe={"lr": setting.lr, "schedule": setting.schedule},
        )
        for index, setting in enumerate(tried)
    ]


Values = dict[str, list]
"""A network's parameters as nested lists of plain numbers, by name."""


def values_of(trained: Trained, structure: Structure) -> Values:
    """The values that a trained structure has, without what stands around its block; 0 where it has no weight."""
    sizes = (2, *structure.widths, 1)
    found: Values = {}
    for name, parameter in trained.model.named_parameters():
        layer = (int(name.partition(".")[0]) - 1) // 2
        rows, columns = sizes[layer + 1], sizes[layer]
        own = parameter.detach()[:rows] if parameter.ndim == 1 else parameter.detach()[:rows, :columns]
        found[name] = own.cpu().tolist()
    return found
