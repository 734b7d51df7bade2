"""Data that fits in memory: batched, shuffled and augmented as tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tombola.errors import TombolaError
from tombola.scores import Batch

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def crop(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """A random crop of each zero-padded image, of its own size; images: (n, channels, height, width)."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=generator).to(images.device)
    rows = (top[:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    sample = torch.arange(count, device=images.device)[:, None, None, None]
    return padded[sample, torch.arange(channels, device=images.device)[None, :, None, None], rows, columns]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored left to right with probability one half."""
    mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


AUGMENTATIONS: dict[str, Augmentation] = {"crop": crop, "flip": flip}


@dataclass(frozen=True)
class MemoryBatches:
    """One pass over tensors in batches; shuffled and augmented if there is a seed for it.

    drop_last: leave out a last batch that is not whole. When shuffled, one of a single sample is always left out, since
    batch norm cannot train on it.
    """

    inputs: Any
    targets: Any
    size: int
    seed: int | None = None
    augment: tuple[str, ...] = ()
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.augment and not (isinstance(self.inputs, Tensor) and self.inputs.ndim == 4):
            raise TombolaError(f"{', '.join(self.augment)} needs images of shape (n, channels, height, width)")

    @property
    def count(self) -> int:
        return len(self.targets)

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.size)
        return whole + (rest > (self.seed is not None and whole > 0) and not (self.drop_last and whole))

    def order(self, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """Which samples come one after another in a shuffled pass, int32; the generator goes on to augment them."""
        assert self.seed is not None
        return torch.randperm(self.count, generator=generator.manual_seed(self.seed), dtype=torch.int32, out=out)

    def __iter__(self) -> Iterator[Batch]:
        if self.seed is None:
            for start in range(0, len(self) * self.size, self.size):
                yield pick(self.inputs, slice(start, start + self.size)), self.targets[start : start + self.size]
            return
        generator = torch.Generator()
        order = self.order(generator)
        for start in range(0, len(self) * self.size, self.size):
            index = order[start : start + self.size]
            inputs = pick(self.inputs, index)
            for name in self.augment:
                inputs = AUGMENTATIONS[name](inputs, generator)
            yield inputs, pick(self.targets, index)


def pick(values: Any, index: Tensor | slice) -> Any:
    """The samples at `index` of a tensor, or of each tensor in a tuple or dict."""
    if isinstance(values, dict):
        return {key: pick(value, index) for key, value in values.items()}
    if isinstance(values, tuple | list):
        return tuple(pick(value, index) for value in values)
    return values[index] if isinstance(index, slice) else values.index_select(0, index.to(values.device))


def move(values: Any, device: torch.device, channels_last: bool = False) -> Any:
    """The same batch on a device."""
    if isinstance(values, dict):
        return {key: move(value, device, channels_last) for key, value in values.items()}
    if isinstance(values, tuple | list):
        return tuple(move(value, device, channels_last) for value in values)
    if not isinstance(values, Tensor):
        return values
    layout = torch.channels_last if channels_last and values.ndim == 4 else torch.preserve_format
    return values.to(device, non_blocking=True, memory_format=layout)


def split_off(count: int, share: float) -> tuple[Tensor, Tensor]:
    """A fixed split of `count` samples into kept and set aside (a share of them), as index tensors."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    aside = math.ceil(share * count)
    return order[aside:].sort().values, order[:aside].sort().values
