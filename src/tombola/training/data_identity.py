"""Fingerprints of data."""

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
from tombola.training.loaders import DataWarning
from tombola.training.object_state import array_digest, without_addresses
from tombola.training.random_generators import generators_in, generators_kept, seed_generator
from tombola.training.randomness import own_randomness
from tombola.training.source_code import PLAIN, is_installed, source_of

SETTINGS = (*PLAIN, Tensor, list, tuple, range, np.ndarray)
"""Types of a sampler's attributes that count as its settings."""
FIRST = "first batch "
"""Begins the fingerprint of data of which only the first batch is known."""


def digest_of_splits(splits: Mapping[str, Any]) -> str:
    """Make a fingerprint of all samples that have an index, and of the first batch where samples have none.

    Args:
        splits: each split's data by its name: tensors in tuples, lists or dicts, a DataLoader, a dataset with a length,
            or an iterable of batches.

    Returns:
        The fingerprint; it begins with `FIRST` if a split is known by its first batch alone, which is warned of.
    """
    tensors: dict[str, Tensor] = {}
    streams = [split for split, source in splits.items() if not is_indexed(source)]
    with own_randomness(torch.device("cpu"), 0):  # samples may be augmented at random when they are read
        for split, source in splits.items():
            generators = [] if split in streams else generators_in(getattr(source, "dataset", source))
            with generators_kept(generators):
                for generator in generators:
                    seed_generator(generator, 0)
                content = next(iter(source), None) if split in streams else _content_of(source)
            tensors |= {f"{split}/{place}": tensor for place, tensor in _numbered(content).items()}
    if streams:
        warnings.warn(
            f"the data of {' and '.join(streams)} are a stream of batches and only the first batch identifies them: "
            "other data that begin alike would be taken for these; give tensors, or a DataLoader over a dataset with a "
            "length",
            DataWarning,
            stacklevel=2,
        )
    return (FIRST if streams else "") + digest_of(tensors)


def is_indexed(source: Any) -> bool:
    """Whether each sample can be looked up by its index."""
    if isinstance(source, DataLoader):
        return is_indexed(source.dataset)
    if isinstance(source, IterableDataset):
        return False
    return isinstance(source, MemoryBatches) or all(hasattr(source, name) for name in ("__getitem__", "__len__"))


def _content_of(source: Any) -> Any:
    """All samples of a split, and how a loader makes batches of them."""
    if isinstance(source, MemoryBatches):
        return source.inputs, source.targets
    if isinstance(source, DataLoader):
        return _content_of(source.dataset), _batching_of(source)
    if isinstance(source, Tensor | tuple | list | Mapping):
        return source
    if type(source) is TensorDataset:
        return source.tensors
    content = hashlib.blake2b(digest_size=16)
    for place in range(len(source)):  # one sample at a time: all of them need not fit in memory
        content.update(digest_of(_numbered(source[place])).encode())
    return content.hexdigest()


def _numbered(value: Any) -> dict[str, Tensor]:
    return {str(place): tensor for place, tensor in enumerate(_tensors(value))}


def _batching_of(loader: DataLoader) -> list[Any]:
    """How a loader chooses samples and puts them together."""
    samplers = [
        (
            type(sampler).__name__,
            _user_code(sampler),
            {name: value for name, value in vars(sampler).items() if isinstance(value, SETTINGS)},
        )
        for sampler in (loader.sampler, loader.batch_sampler)
        if sampler is not None
    ]
    collate: Any = loader.collate_fn
    name = getattr(collate, "__qualname__", type(collate).__name__)
    # The seed and not the state, which moves with each pass over the loader.
    seeds = [] if loader.generator is None else [loader.generator.initial_seed()]
    return [loader.batch_size, loader.drop_last, name, _user_code(collate), samplers, *seeds]


def _user_code(value: Any) -> str:
    """A fingerprint of the user's own code with its settings; empty for code that is installed, as torch's."""
    if isinstance(value, partial):
        return source_of(value)
    definition = value if hasattr(value, "__qualname__") else type(value)
    if is_installed(definition):
        return ""
    # A sampler by its class: its settings are read beside it, and its other attributes may be the data themselves.
    return source_of(value if definition is value or not isinstance(value, Sampler) else type(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors within a value in order, arrays and images too; of all else the bytes of its text."""
    if isinstance(value, Mapping):
        yield _as_bytes(repr(list(value)))
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, Tensor):
        yield value
    elif hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        yield _as_bytes(array_digest(np.asarray(value)))
    elif type(value).__repr__ is object.__repr__ and vars(value):
        yield from _tensors(vars(value))
    else:
        yield _as_bytes(without_addresses(repr(value)))


def _as_bytes(text: str) -> Tensor:
    """A text as a tensor of bytes; frombuffer takes no empty buffer."""
    return torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8)
