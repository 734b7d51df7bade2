"""The zoo: small models and real data, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tombola.errors import unknown
from tombola.zoo.convnet import conv_n
from tombola.zoo.digits import digits
from tombola.zoo.lenet import lenet5, lenet_300_100
from tombola.zoo.mnist1d import mnist1d
from tombola.zoo.resnet import ResNet

Builder = Callable[..., nn.Module]

MODELS: dict[str, Builder] = {
    "lenet-300-100": lenet_300_100,
    "lenet5": lenet5,
    "conv2": partial(conv_n, 2),
    "conv4": partial(conv_n, 4),
    "conv6": partial(conv_n, 6),
    "resnet20": partial(ResNet, 3, "A"),
    "resnet20-projection": partial(ResNet, 3, "projection"),
}

DATA: dict[str, Callable[[], dict[str, tuple[Tensor, Tensor]]]] = {"digits": digits, "mnist1d": mnist1d}


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


def data(name: str) -> dict[str, tuple[Tensor, Tensor]]:
    """A data set's "train" and "test" splits, each (inputs float32, targets int64); same call, same tensors."""
    if name not in DATA:
        raise unknown("data set", name, DATA)
    return DATA[name]()


__all__ = ["DATA", "MODELS", "data", "model"]
