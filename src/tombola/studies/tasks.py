"""Tasks by name: data, model, recipe; from the zoo or the user's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor, nn
from tyro.conf import arg

from tombola import zoo
from tombola.errors import TombolaError
from tombola.registry import DATA, MODELS, imported
from tombola.training import Recipe, SupervisedTask, binary_accuracy, binary_cross_entropy

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
    "cifar10": Recipe(epochs=160, schedule="multistep", augment=("crop", "flip")),
    "cifar100": Recipe(epochs=160, schedule="multistep", augment=("crop", "flip")),
    "vader": Recipe(epochs=6, batch=32, optimizer="adamw", lr=5e-5, weight_decay=0.01, warmup=0.5),
    "images": Recipe(epochs=30, augment=("flip",)),
}
"""How each data set is trained on unless the user says otherwise."""

OWN_DATA = 'package.module:function that returns {"train": (inputs, targets), "test": …}'
OWN_MODEL = "package.module:function that returns a freshly initialised nn.Module"


@dataclass(frozen=True)
class TaskOptions:
    """What to learn."""

    data: Annotated[str, arg(help=f"{', '.join(DATA)}; or {OWN_DATA}")] = "digits"
    model: Annotated[str, arg(help=f"{', '.join(MODELS)}; or {OWN_MODEL}")] = "lenet-300-100"
    width: float = 1.0
    """hidden units of a named model, as a multiple of its own"""
    data_dir: Path | None = None
    """the folder of a named data set's files, where they are not in the usual place; for images, of train/ and test/"""
    image_size: int | None = None
    """for images of your own: the side of the square that each is scaled and cut to"""
    hold_out: int = 0
    """how many of the last classes are kept out of training and testing, to see whether they are told apart"""
    recipe: Recipe = Recipe()


def default_options(words: Sequence[str]) -> TaskOptions:
    """The options with the recipe that fits the data set that the words name."""
    named = [value for word, value in pairwise(words) if word == "--data"]
    named += [word.removeprefix("--data=") for word in words if word.startswith("--data=")]
    data = named[-1] if named else TaskOptions.data
    return TaskOptions(data=data, recipe=RECIPES.get(data, Recipe()))


def make_task(options: TaskOptions) -> SupervisedTask:
    """The task; TombolaError for a name that does not exist or an object that does not fit."""
    data = _own(options.data, "data")() if ":" in options.data else _zoo_data(options)
    if options.hold_out:
        data = zoo.hold_out(data, options.hold_out)
    labels = _labels(options)
    if ":" in options.model:
        return SupervisedTask(_own(options.model, "model"), data, recipe=options.recipe, labels=labels)
    shape, classes = _sizes(data)
    narrower = partial(_zoo_model, options.model, shape, classes, options.width)
    task = SupervisedTask(narrower(1.0), data, recipe=options.recipe, narrower=narrower, labels=labels)
    single = options.model in zoo.SINGLE_OUTPUT and classes == 2
    return replace(task, loss=binary_cross_entropy, metric=binary_accuracy) if single else task


def _zoo_data(options: TaskOptions) -> zoo.Data:
    return zoo.data(options.data, options.data_dir, options.image_size)


def _zoo_model(
    name: str, shape: tuple[int, ...], classes: int, width: float, relative: float
) -> Callable[[], nn.Module]:
    return zoo.model(name, shape, classes, width * relative)


def _sizes(data: Any) -> tuple[tuple[int, ...], int]:
    inputs, targets = data["train"] if isinstance(data["train"], tuple) else next(iter(data["train"]))
    if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor) and not targets.is_floating_point()):
        raise TombolaError(
            "a named model needs one input tensor and class numbers; give your own as package.module:function"
        )
    return tuple(inputs.shape[1:]), int(targets.max()) + 1


def _labels(options: TaskOptions) -> dict[str, str]:
    """The options, so that the command line makes the same task of them."""
    labels = {"data": options.data, "model": options.model}
    if options.width != 1.0:
        labels["width"] = f"{options.width:g}"
    labels |= {"data-dir": str(options.data_dir)} if options.data_dir else {}
    labels |= {"hold-out": str(options.hold_out)} if options.hold_out else {}
    labels |= {"image-size": str(options.image_size)} if options.image_size else {}
    usual = RECIPES.get(options.data, Recipe())
    for field in fields(Recipe):
        own = getattr(options.recipe, field.name)
        if own != getattr(usual, field.name):
            key = field.name.replace("_", "-")
            if isinstance(own, bool):
                labels[f"recipe.{key if own else 'no-' + key}"] = ""
            else:
                labels[f"recipe.{key}"] = " ".join(map(str, own)) if isinstance(own, tuple) else str(own)
    return labels


def task_words(labels: Mapping[str, Any]) -> list[str]:
    """The options, as typed, that make a task; several values are a recipe's alone, so that a path keeps its spaces."""
    words = []
    for key, value in labels.items():
        text = str(value)
        words += [f"--{key}", *(text.split() if key.startswith("recipe.") else [text] if text else [])]
    return words


def _own(name: str, kind: str) -> Callable[..., Any]:
    """The user's function named as package.module:function, found from the current folder too."""
    function = imported(name, f"the {kind}")
    if not callable(function):
        raise TombolaError(
            f"the {kind} '{name}' is a {type(function).__name__}, not a function; give package.module:function"
        )
    return function
