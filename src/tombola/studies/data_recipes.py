"""How the networks of each named data set are trained, and what is measured of them."""

from __future__ import annotations

from collections.abc import Mapping

from tombola import zoo
from tombola.training import Recipe

FILM_RECIPE = Recipe(epochs=6, batch=32, optimizer="adamw", lr=5e-5, weight_decay=0.01, warmup=0.5)
TEXT_RECIPE = Recipe(epochs=3, batch=32, optimizer="adamw", lr=2e-5, weight_decay=0.0, schedule="linear", clip=1.0)
"""How GLUE's tasks are fine-tuned (Devlin et al., NAACL 2019), and texts of one's own."""

RECIPES: Mapping[str, Recipe] = {
    "digits": Recipe(epochs=20, batch=64, precision="float32"),
    "mnist1d": Recipe(epochs=20, batch=64, precision="float32"),
    "cubist-spiral": Recipe(
        epochs=50,
        weight_decay=5e-4,
        schedule="cosine-by-epoch",
        milestones=(0.3, 0.6),
        precision="float32",
        drop_last=True,
    ),
    "fashion-mnist": Recipe(epochs=5),
    "fashion-mnist-14": Recipe(epochs=30),
    "fashion-mnist-32": Recipe(epochs=30),
    "cifar10": Recipe(epochs=160, schedule="multistep", augment=("crop", "flip")),
    "cifar100": Recipe(epochs=160, schedule="multistep", augment=("crop", "flip")),
    "vader": FILM_RECIPE,
    "vader-news": FILM_RECIPE,
    "vader-products": FILM_RECIPE,
    "vader-tweets": FILM_RECIPE,
    "images": Recipe(epochs=30, augment=("flip",)),
}
"""The recipe of each data set, unless the user chooses another."""

MEASURES: Mapping[str, Mapping[str, str]] = {
    "glue-cola": {"metric": "matthews"},
    "glue-sts-b": {"loss": "mse", "metric": "pearson"},
}
"""The loss and the metric of each data set for which they are not the usual ones."""


def recipe_for(data: str) -> Recipe:
    """The recipe of a data set, unless the user chooses another.

    Examples:
        >>> recipe_for("glue-rte").schedule, recipe_for("mine:data") == Recipe()
        ('linear', True)
    """
    is_text = data.startswith((zoo.TEXTS, "glue-"))
    return TEXT_RECIPE if is_text else RECIPES.get(data, Recipe())
