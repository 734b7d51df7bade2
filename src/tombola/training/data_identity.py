"""What data are, in a few bytes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from tombola.tickets import digest_of
from tombola.training.batches import MemoryBatches
from tombola.training.randomness import own_randomness
from tombola.training.source_code import PLAIN, is_installed, source_of

FIRST = "first batch "
"""What the fingerprint begins with of data that are known by their first batch alone."""


class DataWarning(UserWarning):
    """Data that cannot be told apart from others."""


def digest_of_splits(splits: Mapping[str, Any]) -> str:
    """A fingerprint of all data that can be looked up; of the first batch where batches only come by.

    Args:
        splits: by name: tensors in tuples, lists or dicts, a DataLoader, a dataset with a length, or an iterable of
            batches.
    """
    named: dict[str, Tensor] = {}
    first = [split for split, source in splits.items() if not _has_places(source)]
    with own_randomness(torch.device("cpu"), 0):
        for split, source in splits.items():
            held = next(iter(source)) if split in first else _held(source)
            named |= {f"{split}/{place}": tensor for place, tensor in _numbered(held).items()}
    if first:
        warnings.warn(
            f"the data of {' and '.join(first)} come by batch after batch and are known by the first one alone: others "
            "that begin so would be taken for these; give tensors, or a DataLoader over a dataset with a length",
            DataWarning,
            stacklevel=2,
        )
    return (FIRST if first else "") + digest_of(named)


def _has_places(source: Any) -> bool:
    """Whether each sample can be looked up."""
    if isinstance(source, DataLoader):
        return _has_places(source.dataset)
    if isinstance(source, IterableDataset):
        return False
    return isinstance(source, MemoryBatches) or all(hasattr(source, name) for name in ("__getitem__", "__len__"))


def _held(source: Any) -> Any:
    """All that a split holds, and how a loader makes batches of it."""
    if isinstance(source, MemoryBatches):
        return source.inputs, source.targets
    if isinstance(source, DataLoader):
        return _held(source.dataset), _making(source)
    if isinstance(source, Tensor | tuple | list | Mapping):
        return source
    if isinstance(tensors := getattr(source, "tensors", None), tuple):
        return tensors
    content = hashlib.blake2b(digest_size=16)
    for place in range(len(source)):
        content.update(digest_of(_numbered(source[place])).encode())
    return content.hexdigest()


def _numbered(value: Any) -> dict[str, Tensor]:
    return {str(place): tensor for place, tensor in enumerate(_tensors(value))}


def _making(loader: DataLoader) -> list[Any]:
    """How a loader puts batches together."""
    makers = [loader.sampler, loader.batch_sampler]
    said = [
        (type(maker).__name__, {name: own for name, own in vars(maker).items() if isinstance(own, (*PLAIN, Tensor))})
        for maker in makers
        if maker is not None
    ]
    collate: Any = loader.collate_fn
    code = "" if is_installed(collate) or not hasattr(collate, "__qualname__") else source_of(collate)
    return [loader.batch_size, loader.drop_last, getattr(collate, "__qualname__", type(collate).__name__), code, said]


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors within a value in order; what is no tensor, as the bytes of its text."""
    if isinstance(value, Mapping | tuple | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)
    elif isinstance(value, Tensor):
        yield value
    else:
        yield torch.frombuffer(bytearray(repr(value).encode() or b" "), dtype=torch.uint8)
