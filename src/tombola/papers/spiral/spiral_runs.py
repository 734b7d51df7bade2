"""Runs of the spiral's networks: their task, their settings and their initialisation."""

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
from tombola.studies.data_recipes import RECIPES
from tombola.training import Member, Recipe, SupervisedTask, Trained, binary_accuracy, binary_cross_entropy

Schedule = Literal["cosine-by-epoch", "multistep", "constant"]
SCHEDULES: tuple[Schedule, ...] = ("cosine-by-epoch", "multistep", "constant")
RECIPE = RECIPES["cubist-spiral"]

Trainer = Callable[[SupervisedTask, Sequence[Member]], list[Trained]]
"""A function that trains networks of one architecture, each as if it were alone."""


@dataclass(frozen=True)
class Setting:
    """What the study varies in training.

    Args:
        lr: learning rate.
        schedule: of the learning rate.

    Examples:
        >>> Setting(0.05, "multistep").name
        '0.05 multistep'
    """

    lr: float
    schedule: Schedule

    @property
    def name(self) -> str:
        return f"{self.lr:g} {self.schedule}"


def settings(lrs: Sequence[float], schedules: Sequence[Schedule] = SCHEDULES) -> tuple[Setting, ...]:
    """Every learning rate with every schedule.

    Raises:
        TombolaError: if there is no learning rate or no schedule.

    Examples:
        >>> [setting.name for setting in settings((0.05, 0.1), ("constant",))]
        ['0.05 constant', '0.1 constant']
    """
    if not lrs or not schedules:
        raise TombolaError("there is nothing to try: give at least one learning rate and one schedule")
    return tuple(Setting(lr, schedule) for lr, schedule in product(lrs, schedules))


def check_recipe(recipe: Recipe) -> None:
    """Raise TombolaError for a recipe with a learning rate or schedule of its own, as each setting replaces them."""
    if (recipe.lr, recipe.schedule) != (RECIPE.lr, RECIPE.schedule):
        raise TombolaError(
            "every run has a learning rate and a schedule of the study's; leave --recipe.lr and --recipe.schedule out, "
            "or in Python give lrs and schedules"
        )


def spiral_task(widths: Widths, recipe: Recipe = RECIPE, of: int = zoo.SPIRAL_WIDTH) -> SupervisedTask:
    """The task of the Cubist Spiral (Zhang & Papyan, ICML 2024) for a block of the study's network.

    As in the study, the accuracy is that on all points, which are the training data too. It is measured once, at the
    end: the validation split is empty.

    Args:
        widths: of the three hidden layers.
        recipe: of the training.
        of: width of the network whose initialisation the block is cut out of, as its top-left corner.
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
    """The widths of the smallest network into whose top-left corner each of these structures fits."""
    first, second, third = (max(layer) for layer in zip(*(structure.widths for structure in structures), strict=True))
    return first, second, third


def members(
    structure: Structure, widths: Widths, seed: int, tried: Sequence[Setting], init: int | None = None
) -> list[Member]:
    """The networks of one round of a structure: one at each setting, each with its own seed.

    Args:
        structure: what is trained.
        widths: of the network that holds the structure in its top-left corner.
        seed: the round, from 0.
        tried: the settings.
        init: seed of one initialisation for all of them; None gives each its own.
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
    """The values of a trained structure, cut out of the network around it; 0 where it has no weight."""
    sizes = (2, *structure.widths, 1)
    values: Values = {}
    for name, parameter in trained.model.named_parameters():
        # The linear layers are modules 1, 3, 5 and 7 of the network.
        layer = (int(name.partition(".")[0]) - 1) // 2
        rows, columns = sizes[layer + 1], sizes[layer]
        block = parameter.detach()[:rows] if parameter.ndim == 1 else parameter.detach()[:rows, :columns]
        values[name] = block.cpu().tolist()
    return values
