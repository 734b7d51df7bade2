"""Holding out classes, so that what a network has not learned is near what it has."""

from __future__ import annotations

from torch import Tensor

from tombola.errors import TombolaError
from tombola.zoo.normalisation import Data


def hold_out(data: Data, count: int) -> Data:
    """The data without its last `count` classes in any split, and their test samples as the split "held-out".

    TombolaError unless at least two classes are left, and for data that is not in memory.
    """
    if not all(isinstance(split, tuple) and isinstance(split[0], Tensor) for split in data.values()):
        raise TombolaError("classes can be held out of data in memory alone, as (inputs, targets); give --hold-out 0")
    classes = int(data["train"][1].max()) + 1
    if not 0 < count <= classes - 2:
        raise TombolaError(
            f"of {classes} classes {count} cannot be held out; hold out at most {classes - 2}, or none: --hold-out 0"
        )
    splits: Data = {}
    for name, (inputs, targets) in data.items():
        known = targets < classes - count
        splits[name] = inputs[known], targets[known]
    inputs, targets = data["test"]
    foreign = targets >= classes - count
    return splits | {"held-out": (inputs[foreign], targets[foreign])}
