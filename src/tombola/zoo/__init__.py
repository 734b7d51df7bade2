"""The zoo: small models and real data, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from tombola.errors import TombolaError, unknown
from tombola.zoo.cifar import cifar10, cifar100
from tombola.zoo.convnet import conv_n
from tombola.zoo.cubist_spiral import cubist_spiral
from tombola.zoo.digits import digits
from tombola.zoo.fashion_mnist import fashion_mnist, fashion_mnist_14
from tombola.zoo.held_out import hold_out
from tombola.zoo.image_folder import image_folder
from tombola.zoo.lenet import lenet5, lenet_300_100
from tombola.zoo.minilm import minilm
from tombola.zoo.mnist1d import mnist1d
from tombola.zoo.normal import Data
from tombola.zoo.resnet import large_resnet, small_resnet, wide_resnet
from tombola.zoo.spiral_mlp import SPIRAL_WIDTH, spiral_block, spiral_mlp
from tombola.zoo.two_layer import two_layer
from tombola.zoo.vader import vader
from tombola.zoo.vgg import vgg
from tombola.zoo.vit import vit_tiny

Builder = Callable[..., nn.Module]

MODELS: dict[str, Builder] = {
    "two-layer": two_layer,
    "lenet-300-100": lenet_300_100,
    "lenet5": lenet5,
    "conv2": partial(conv_n, 2),
    "conv4": partial(conv_n, 4),
    "conv6": partial(conv_n, 6),
    "vgg11": partial(vgg, 11),
    "vgg16": partial(vgg, 16),
    **{f"resnet{depth}": partial(small_resnet, depth, "basic", "A") for depth in (20, 32, 44, 56, 110)},
    "resnet20-projection": partial(small_resnet, 20, "basic", "projection"),
    **{f"preresnet{depth}": partial(small_resnet, depth, "pre-activation", "A") for depth in (20, 56, 110)},
    "resnet18": partial(large_resnet, "basic", (2, 2, 2, 2), 1),
    "preresnet18": partial(large_resnet, "pre-activation", (2, 2, 2, 2), 1),
    "resnet50": partial(large_resnet, "bottleneck", (3, 4, 6, 3), 4),
    "wrn-28-2": partial(wide_resnet, 28, 2),
    "spiral-mlp": spiral_mlp,
    "vit-tiny": vit_tiny,
    "minilm": minilm,
}

SINGLE_OUTPUT = ("spiral-mlp",)
"""Models that have one output for two classes, the log-odds of the second."""

GENERATED: dict[str, Callable[[], Data]] = {
    "digits": digits,
    "mnist1d": mnist1d,
    "cubist-spiral": cubist_spiral,
}
"""Data that needs no file."""

STORED: dict[str, Callable[[Path | None], Data]] = {
    "fashion-mnist": fashion_mnist,
    "fashion-mnist-14": fashion_mnist_14,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "vader": vader,
}
"""Data in files: in the folder given, where the system keeps them, or downloaded into the user's cache."""

IMAGES = "images"
"""The name of a folder of the user's own images."""

DATA = (*GENERATED, *STORED, IMAGES)


def model(name: str, input_shape: tuple[int, ...], classes: int, width: float = 1.0) -> Callable[[], nn.Module]:
    """A factory, without arguments and picklable, of freshly initialised models of this name.

    width: hidden units as a multiple of the model's own. Raises TombolaError for a name that does not exist,
    and at once for inputs that the model cannot take.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
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
    if size is not None and name != IMAGES:
        raise TombolaError(f"{name} has images of one size; leave --image-size out")
    if name == IMAGES:
        if place is None:
            raise TombolaError("say where your images are: --data-dir DIR, with DIR/train/CLASS/ and DIR/test/CLASS/")
        return image_folder(place, size)
    if name in STORED:
        return STORED[name](place)
    if name not in GENERATED:
        raise unknown("data set", name, DATA)
    if place is not None:
        raise TombolaError(f"{name} is not read from files; leave --data-dir out")
    return GENERATED[name]()


__all__ = [
    "DATA",
    "GENERATED",
    "MODELS",
    "SINGLE_OUTPUT",
    "SPIRAL_WIDTH",
    "STORED",
    "Data",
    "data",
    "hold_out",
    "model",
    "spiral_block",
    "spiral_mlp",
]
