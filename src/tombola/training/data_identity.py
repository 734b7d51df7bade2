"""What data are, in a few bytes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset

from tombola.tickets import digest_of
from tombola.training.batches import MemoryBatches
from tombola.training.object_state import array_digest, without_addresses
from tombola.training.randomness import own_randomness
from tombola.training.source_code import PLAIN, is_installed, source_of

SETTINGS = (*PLAIN, Tensor, list, tuple, range, np.ndarray)
"""What of a sampler's attributes is read."""
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
    if type(source) is TensorDataset:
        return source.tensors
    content = hashlib.blake2b(digest_size=16)
    for place in range(len(source)):
        content.update(digest_of(_numbered(source[place])).encode())
    return content.hexdigest()


def _numbered(value: Any) -> dict[str, Tensor]:
    return {str(place): tensor for place, tensor in enumerate(_tensors(value))}


def _making(loader: DataLoader) -> list[Any]:
    """How a loader puts batches together."""
    makers = [maker for maker in (loader.sampler, loader.batch_sampler) if maker is not None]
    said = [
        (
            type(maker).__name__,
            _code(maker),
            {name: own for name, own in vars(maker).items() if isinstance(own, SETTINGS)},
        )
        for maker in makers
    ]
    collate: Any = loader.collate_fn
    called = getattr(collate, "__qualname__", type(collate).__name__)
    seeds = [] if loader.generator is None else [loader.generator.initial_seed()]
    return [loader.batch_size, loader.drop_last, called, _code(collate), said, *seeds]


def _code(value: Any) -> str:
    """What the user's own code does, with what it is set to; nothing of torch's own."""
    if isinstance(value, partial):
        return source_of(value)
    known = value if hasattr(value, "__qualname__") else type(value)
    if is_installed(known):
        return ""
    return source_of(value if known is value or not isinstance(value, Sampler) else type(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors within a value in order, arrays and images among them; what is none, as the bytes of its text."""
    if isinstance(value, Mapping):
        yield _text(repr(list(value)))
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, Tensor):
        yield value
    elif hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        yield _text(array_digest(np.asarray(value)))
    elif type(value).__repr__ is object.__repr__ and vars(value):
        yield from _tensors(vars(value))
    else:
        yield _text(without_addresses(repr(value)))


def _text(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8)
