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
    """Make torch sum with one thread, so that data are the same bit for bit whatever the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def normalised(data: Data) -> Data:
    """The same images with mean 0 and standard deviation 1 in each channel, over all training images and pixels.

    Args:
        data: splits with images of shape (n, channels, height, width); "train" decides mean and deviation.

    Examples:
        >>> images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> split = normalised({"train": (images, torch.zeros(5))})["train"]
        >>> split[0].std((0, 2, 3)).round(decimals=4).tolist()
        [1.0, 1.0, 1.0]
    """
    images = data["train"][0]
    mean, deviation = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    return {split: ((inputs - mean) / deviation, targets) for split, (inputs, targets) in data.items()}
