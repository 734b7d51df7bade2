"""Normalising images by the training split."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor

Data = dict[str, tuple[Tensor, Tensor]]
"""Splits by name, each (inputs float32, targets int64)."""


@contextmanager
def one_thread() -> Generator[None]:
    """Inside, sums are added in one order, so that data are the same bit for bit however many threads torch has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def normalised(data: Data) -> Data:
    """The same data with mean 0 and standard deviation 1 in each channel, over all training images and pixels."""
    images = data["train"][0]
    mean, deviation = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    return {split: ((inputs - mean) / deviation, targets) for split, (inputs, targets) in data.items()}
