"""The settings with which dual lottery tickets were published."""

from __future__ import annotations

from typing import Literal

from tombola.errors import TombolaError
from tombola.methods.rst import RST
from tombola.structure import Prunable
from tombola.training import Recipe


def published_rst(
    density: float, cycles: int = 1, like: Literal["paper", "code"] = "paper", prunable: Prunable = Prunable()
) -> tuple[RST, Recipe]:
    """The transformation and the recipe that Bai et al. (ICLR 2022) published for CIFAR.

    They are read from the paper's public code, where paper and code differ: by default, the code drops the smallest
    initial weights of a single cycle, and the paper random ones. In later cycles the code drops the smallest weights
    again in place of those that were dropped before, and the paper keeps to these. λ grows by 0.0001 to 1 within 50,000
    steps and is held for 40,000; in cycles within 10,000 steps, held for as many.

    Args:
        density: what each layer keeps.
        cycles: 1 for RST; the paper has 5 for RST-Iter.
        like: `paper` or `code`.
        prunable: which parameters may be pruned; the paper leaves out the first convolution and the classifier.

    Returns:
        The method, and the recipe of its ticket's training.

    Raises:
        TombolaError: for another word than `paper` or `code`, or a density or a number of cycles that cannot be.

    Examples:
        >>> method, recipe = published_rst(0.1, like="code")
        >>> method.pick, method.every, method.hold, method.batch, recipe.epochs
        ('min', '5it', '40000it', 64, 200)
    """
    if like not in ("paper", "code"):
        raise TombolaError(f"like is '{like}'; give 'paper' or 'code'")
    method = RST(
        density,
        increment=1e-4,
        every="5it" if cycles == 1 else "1it",
        hold="40000it" if cycles == 1 else "10000it",
        cycles=cycles,
        pick="min" if like == "code" and cycles == 1 else "random",
        old="smallest" if like == "code" else "kept",
        lr=0.001,
        batch=64,
        prunable=prunable,
    )
    recipe = Recipe(
        epochs=200,
        batch=128,
        weight_decay=5e-4,
        schedule="multistep",
        milestones=(0.5, 0.75),
        augment=("crop", "flip"),
    )
    return method, recipe
