"""The zoo: small models and real data, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.registry import DATA, MODELS
from tombola.zoo.held_out import hold_out
from tombola.zoo.normalisation import Data, one_thread
from tombola.zoo.spiral_mlp import SPIRAL_WIDTH, spiral_block

SINGLE_OUTPUT = ("spiral-mlp",)
"""Models that have one output for two classes, the log-odds of the second."""


def model(name: str, input_shape: tuple[int, ...], classes: int, width: float = 1.0) -> Callable[[], nn.Module]:
    """A factory, without arguments and picklable, of freshly initialised models of this name.

    width: hidden units as a multiple of the model's own. Raises TombolaError for a name that does not exist,
    and at once for inputs that the model cannot take.
    """
    factory = partial(MODELS[name], input_shape, classes, width)
    with torch.device("meta"):
        factory()
    return factory


def data(name: str, folder: Path | str | None = None, size: int | None = None) -> Data:
    """A data set's "train" and "test" splits, each (inputs float32, targets int64); same call, same tensors.

    Some have a "validation" split too. folder: where the files are, for data in files; size: the side of images
    from a folder of one's own. Raises TombolaError where files are missing or damaged.
    """
    place = None if folder is None else Path(folder)
    if place is not None and not place.is_dir():
        raise TombolaError(f"there is no folder {place}; give the one that holds the data as --data-dir")
    needs = DATA.entry(name).needs
    if needs == "a folder" and place is None:
        raise TombolaError("say where your images are: --data-dir DIR, with DIR/train/CLASS/ and DIR/test/CLASS/")
    if needs != "a folder" and size is not None:
        raise TombolaError(f"{name} has images of one size; leave --image-size out")
    if not needs and place is not None:
        raise TombolaError(f"{name} is not read from files; leave --data-dir out")
    given = {"a folder": (place, size), "files": (place,)}.get(needs, ())
    with one_thread():
        return DATA[name](*given)


__all__ = [
    "DATA",
    "MODELS",
    "SINGLE_OUTPUT",
    "SPIRAL_WIDTH",
    "Data",
    "data",
    "hold_out",
    "model",
    "spiral_block",
]
