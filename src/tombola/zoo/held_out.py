"""Holding out classes, as images that are foreign to a network but close to those that it knows."""

from __future__ import annotations

from torch import Tensor

from tombola.errors import TombolaError
from tombola.zoo.normalisation import Data


def hold_out(data: Data, count: int) -> Data:
    """The data without its last classes, whose test samples become the split "held-out".

    Args:
        data: splits in memory, each (inputs, targets).
        count: how many classes to hold out, at least 1; at least two must be left.

    Raises:
        TombolaError: if fewer than two classes would be left, or the data is not in memory.

    Examples:
        >>> import torch
        >>> split = torch.zeros(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> held = hold_out({"train": split, "test": split}, 1)
        >>> held["train"][1].tolist(), held["held-out"][1].tolist()
        ([0, 1, 0, 1], [2, 2])
    """
    if not all(isinstance(split, tuple) and isinstance(split[0], Tensor) for split in data.values()):
        raise TombolaError("only data in memory, as (inputs, targets), can have classes held out; give --hold-out 0")
    classes = int(data["train"][1].max()) + 1
    if not 0 < count <= classes - 2:
        raise TombolaError(
            f"{count} of {classes} classes cannot be held out; hold out at most {classes - 2}, or none: --hold-out 0"
        )
    splits: Data = {}
    for name, (inputs, targets) in data.items():
        learnt = targets < classes - count
        splits[name] = inputs[learnt], targets[learnt]
    inputs, targets = data["test"]
    foreign = targets >= classes - count
    return splits | {"held-out": (inputs[foreign], targets[foreign])}
