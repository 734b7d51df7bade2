"""Data that fits in memory: batched, shuffled and augmented as tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from tombola.errors import TombolaError
from tombola.nested import mapped, samples_in, tensors_in
from tombola.scores import Batch

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def crop(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Crop each image at random out of its zero-padded self, to its old size.

    Args:
        images: (samples, channels, height, width).
        generator: draws the place of each crop, on the CPU.
        padding: pixels of zeros on each side; 4, as usual for images of 32×32 pixels.

    Returns:
        Images of the same shape.
    """
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    # Drawn on the CPU and then moved, so that a GPU crops as the CPU does.
    top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=generator).to(images.device, non_blocking=True)
    rows = (top[:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    sample = torch.arange(count, device=images.device)[:, None, None, None]
    return padded[sample, torch.arange(channels, device=images.device)[None, :, None, None], rows, columns]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

    Args:
        images: (samples, channels, height, width).
        generator: draws which ones, on the CPU.

    Returns:
        Images of the same shape.
    """
    mirrored = torch.rand(len(images), generator=generator).to(images.device, non_blocking=True) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


AUGMENTATIONS: dict[str, Augmentation] = {"crop": crop, "flip": flip}


@dataclass(frozen=True)
class MemoryBatches:
    """One pass over tensors in batches; shuffled and augmented if there is a seed for it.

    Args:
        inputs: a tensor, or a tuple or dict of tensors, samples first.
        targets: a tensor, or a tuple or dict of tensors, samples first.
        size: samples in a batch.
        seed: of the order and of the augmentation; None gives the samples in order and as they are.
        augment: names of `AUGMENTATIONS`, for images of shape (samples, channels, height, width).
        drop_last: leave out a last batch that is not full. A shuffled pass always leaves out a last batch of a single
            sample, since batch norm cannot train on it.

    Raises:
        TombolaError: if `augment` is asked of inputs that are not images.

    Examples:
        >>> batches = MemoryBatches(torch.arange(5.0), torch.arange(5), size=2)
        >>> [targets.tolist() for _, targets in batches], len(batches)
        ([[0, 1], [2, 3], [4]], 3)
    """

    inputs: Any
    targets: Any
    size: int
    seed: int | None = None
    augment: tuple[str, ...] = ()
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.augment:
            _check_images(self.inputs, self.augment)

    @property
    def count(self) -> int:
        return samples_in(self.targets) or 0

    def __len__(self) -> int:
        full, rest = divmod(self.count, self.size)
        smallest = 2 if self.seed is not None and full else 1  # batch norm cannot train on a single sample
        return full + (rest >= smallest and not (self.drop_last and full))

    def order(self, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """Draw the order of the samples in a shuffled pass.

        Args:
            generator: is set to the pass's seed here, and draws the augmentation afterwards.
            out: where the order is written, if it is given.

        Returns:
            Sample numbers, int32.
        """
        assert self.seed is not None
        return torch.randperm(self.count, generator=generator.manual_seed(self.seed), dtype=torch.int32, out=out)

    def __iter__(self) -> Iterator[Batch]:
        if self.seed is None:
            for start in range(0, len(self) * self.size, self.size):
                part = slice(start, start + self.size)
                yield pick(self.inputs, part), pick(self.targets, part)
            return
        generator = torch.Generator()
        order = self.order(generator)
        if (place := tensors_in(self.inputs)) and place[0].device != order.device:
            order = order.to(place[0].device)
        for start in range(0, len(self) * self.size, self.size):
            index = order[start : start + self.size]
            inputs = pick(self.inputs, index)
            yield augmented(inputs, self.augment, generator) if self.augment else inputs, pick(self.targets, index)


def augmented(inputs: Any, names: tuple[str, ...], generator: torch.Generator) -> Any:
    """Augment a batch of images.

    Args:
        inputs: images of shape (samples, channels, height, width).
        names: of `AUGMENTATIONS`, in this order.
        generator: draws what is done to each image.

    Raises:
        TombolaError: if the inputs are not images.
    """
    _check_images(inputs, names)
    for name in names:
        inputs = AUGMENTATIONS[name](inputs, generator)
    return inputs


def _check_images(inputs: Any, names: tuple[str, ...]) -> None:
    if not (isinstance(inputs, Tensor) and inputs.ndim == 4):
        raise TombolaError(f"{', '.join(names)} needs images of shape (n, channels, height, width)")


def pick(values: Any, index: Tensor | slice) -> Any:
    """Take some samples.

    Args:
        values: tensors, samples first, in any nest that `nested.mapped` knows.
        index: sample numbers, on any device, or a slice of them.

    Returns:
        The same structure with these samples alone.

    Raises:
        TombolaError: for a packed sequence.
    """

    def taken(tensor: Any) -> Tensor:
        if isinstance(tensor, PackedSequence):
            raise TombolaError("no samples can be taken out of a PackedSequence; give padded tensors and their lengths")
        return tensor[index] if isinstance(index, slice) else tensor.index_select(0, index.to(tensor.device))

    return mapped(values, taken, lambda value: isinstance(value, Tensor | PackedSequence))


def check_usable(split: str, values: Any, picked: bool = False) -> None:
    """Check that tensors can be trained on.

    Args:
        split: whose they are, for the error.
        values: a nest of tensors.
        picked: whether single samples are taken out of them.

    Raises:
        TombolaError: for tensors without values, nested ones, and sparse ones out of which samples are taken.
    """
    for tensor in tensors_in(values):
        if tensor.is_meta:
            raise TombolaError(f"the data of '{split}' are on the device meta, where there are no values; give values")
        if tensor.is_nested:
            raise TombolaError(
                f"the data of '{split}' are nested tensors; give padded tensors and their lengths, or packed sequences"
            )
        if picked and tensor.layout != torch.strided:
            raise TombolaError(
                f"the data of '{split}' are sparse, and no samples can be taken out of them; give tensor.to_dense(), "
                "or batches"
            )


def move(values: Any, device: torch.device, channels_last: bool = False) -> Any:
    """Bring a batch to a device.

    Args:
        values: tensors in any nest that `nested.mapped` knows; other objects stay as they are.
        device: where they go.
        channels_last: lay tensors of four dimensions out channels last.

    Returns:
        The same structure, there.
    """

    def moved(tensor: Tensor) -> Tensor:
        layout = torch.channels_last if channels_last and tensor.ndim == 4 else torch.preserve_format
        return tensor.to(device, non_blocking=True, memory_format=layout)

    return mapped(values, moved)


def split_off(count: int, share: float) -> tuple[Tensor, Tensor]:
    """Split samples at random, but in the same way each time.

    Args:
        count: how many samples there are.
        share: of them to set aside, rounded up.

    Returns:
        The numbers of the samples that stay and of those set aside, both ascending.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    aside = math.ceil(share * count)
    return order[aside:].sort().values, order[:aside].sort().values
