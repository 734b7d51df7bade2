"""What people give as a split of their data: samples in memory, samples with an index, or batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, default_collate

from tombola.arrays import as_tensors, is_array, is_numbers
from tombola.errors import TombolaError
from tombola.nested import mapped, samples_in
from tombola.scores import Target, is_dataset, paired
from tombola.training.batches import MemoryBatches, pick
from tombola.training.lengths import length_or_none


@dataclass(frozen=True, eq=False)
class InMemory:
    """Samples as tensors or arrays.

    Args:
        inputs: tensors, arrays or lists of numbers, samples first, in any nest.
        targets: the same.
    """

    inputs: Any
    targets: Any

    @property
    def count(self) -> int | None:
        """How many samples there are."""
        return samples_of(self.targets)

    def tensors(self, double: bool | Callable[[], bool]) -> tuple[Any, Any]:
        """Inputs and targets as tensors; double: as of `as_tensors`."""
        inputs = as_tensors(_stacked(self.inputs, samples_of(self.targets)), double=double)
        return mapped((inputs, as_tensors(self.targets, double=double, labels=True)), Tensor.detach)


@dataclass(frozen=True, eq=False)
class Samples:
    """A data set, whose samples have an index.

    Args:
        dataset: with a length; torch's, one of Hugging Face, or a list of samples.
    """

    dataset: Any

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self.dataset)

    def loader(self, size: int, seed: int | None = None, drop_last: bool = False) -> DataLoader:
        """Batches of the samples, in the order that `MemoryBatches` gives."""
        numbers = torch.arange(len(self.dataset))
        places = IndexBatches(MemoryBatches(numbers, numbers, size, seed, (), drop_last))
        return DataLoader(self.dataset, batch_sampler=places, collate_fn=collated)


@dataclass(frozen=True, eq=False)
class InBatches:
    """Batches, or a stream of samples.

    Args:
        source: as of `LoadedBatches`, or an IterableDataset, whose samples are batched.
    """

    source: Any

    @property
    def count(self) -> int | None:
        """How many batches there are, if that is said."""
        return length_or_none(self.source)

    def batches(self, size: int, drop_last: bool) -> Any:
        """The source itself, or the batches of a stream of samples."""
        if is_dataset(self.source):
            return DataLoader(self.source, size, drop_last=drop_last, collate_fn=collated)
        return self.source


Part = InMemory | Samples | InBatches


@dataclass(frozen=True)
class IndexBatches:
    """The places of samples, batch by batch.

    Args:
        batches: of the places themselves.
    """

    batches: MemoryBatches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for places, _ in self.batches:
            yield places.tolist()


def read_split(source: Any, split: str, target: Target) -> Part:
    """Say what a split is. Nothing is copied, and of the samples at most one is looked at.

    Args:
        source: what the user gave.
        split: its name, for messages.
        target: which part of it is the target, as of `paired`.

    Raises:
        TombolaError: for what gives neither samples nor batches, or gives them only once.
    """
    if isinstance(source, str | bytes | type):
        raise TombolaError(_no_data(source, split))
    tensors = _tensors_of(source)
    if tensors is not None:
        return InMemory(*_pair(tensors, split, target))
    if is_dataset(source):
        return InBatches(source) if _is_stream(source) else Samples(source)
    if isinstance(source, Mapping):
        if not _is_nest(source):
            raise TombolaError(
                f"the data of '{split}' are a dict with more than arrays in it; give arrays or a DataLoader"
            )
        return InMemory(*_pair(source, split, target))
    if isinstance(source, tuple) and len(source) > 1 and all(map(_is_nest, source)):
        pair = _pair(source, split, target)
        if _looks_like_batches(*pair):
            raise TombolaError(
                f"the data of '{split}' may be a pair of inputs and targets or two batches; give batches in a list, or "
                "the targets in a dict"
            )
        return InMemory(*pair)
    if isinstance(source, tuple) and any(isinstance(part, PackedSequence) for part in source):
        raise TombolaError(f"the data of '{split}' hold a PackedSequence, which has no samples to take; give batches")
    if isinstance(source, list):
        if len(source) == 2 and is_array(source[1]) and _is_nest(source[0]):
            return InMemory(*source)
        return Samples(source) if source and _is_sample(source[0], target) else InBatches(source)
    if isinstance(source, Iterator):
        raise TombolaError(
            f"the data of '{split}' are a {type(source).__name__}, which can be read only once, and a training reads "
            "them in each epoch; give the function that makes it, or a list"
        )
    if not hasattr(source, "__iter__") and hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return InBatches(source) if len(source) and _is_batch(source[0], target) else Samples(source)
    if hasattr(source, "__iter__") or callable(source):
        return InBatches(source)
    raise TombolaError(_no_data(source, split))


def _no_data(source: Any, split: str) -> str:
    what = f"the class {source.__name__}" if isinstance(source, type) else f"a {type(source).__name__}"
    return f"the data of '{split}' are {what}; give (inputs, targets) as tensors or arrays, a data set, or a DataLoader"


def collated(samples: list[Any]) -> Any:
    """Put samples together to a batch, as torch does; lists of numbers in a dict, as a tokeniser's, become tensors.

    Args:
        samples: of one structure and shape.

    Raises:
        TombolaError: for samples that cannot be put together.
    """
    if isinstance(samples[0], Mapping):
        samples = [{key: _row(value, key) for key, value in sample.items()} for sample in samples]
    try:
        return default_collate(samples)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise TombolaError(
            f"the samples of a batch cannot be put together ({str(error).splitlines()[0]}); let each give tensors of "
            "one shape, or give a DataLoader with a collate_fn, as one that pads"
        ) from error


def samples_of(values: Any) -> int | None:
    """How many samples a nest of tensors, arrays and lists of numbers has."""
    if is_numbers(values):
        return len(values)
    return len(values) if hasattr(values, "__array__") and not isinstance(values, Tensor) else samples_in(values)


def _row(value: Any, key: str) -> Any:
    if isinstance(value, str):
        raise TombolaError(
            f"the samples have texts under '{key}', which no tensor can hold; make numbers of them, or remove them, as "
            f"dataset.remove_columns('{key}')"
        )
    return as_tensors(value) if is_numbers(value) else value


def _pair(values: Any, split: str, target: Target) -> tuple[Any, Any]:
    try:
        return paired(values, target)
    except TombolaError as error:
        raise TombolaError(f"of the data of '{split}', {error}") from error


def _tensors_of(source: Any) -> tuple[Tensor, ...] | None:
    """The tensors of a TensorDataset, or of a part of one; None for all else."""
    if type(source) is TensorDataset:
        return source.tensors
    if type(source) is Subset and (whole := _tensors_of(source.dataset)) is not None:
        return pick(whole, torch.as_tensor(np.asarray(source.indices), dtype=torch.int64))
    return None


def _is_stream(dataset: Any) -> bool:
    return isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"))


def _is_nest(values: Any) -> bool:
    """Whether a value is made of arrays alone."""
    if is_array(values):
        return True
    if isinstance(values, PackedSequence) or not isinstance(values, Mapping | tuple | list) or not len(values):
        return False
    return all(map(_is_nest, values.values() if isinstance(values, Mapping) else values))


def _is_sample(value: Any, target: Target) -> bool:
    """Whether something is one sample and no batch: its target is one number."""
    try:
        _, targets = paired(value, target)
    except TombolaError:
        return False
    return isinstance(targets, int | float | np.generic) or (
        isinstance(targets, Tensor | np.ndarray) and not targets.ndim
    )


def _is_batch(value: Any, target: Target) -> bool:
    """Whether something is a batch and no sample: it has as many targets as inputs."""
    try:
        inputs, targets = paired(value, target)
    except TombolaError:
        return False
    return samples_of(targets) is not None and samples_of(inputs) == samples_of(targets)


def _looks_like_batches(first: Any, second: Any) -> bool:
    """Whether two tuples or dicts may be batches each, and not inputs and targets."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return list(first) == list(second)
    if not (type(first) is type(second) is tuple and len(first) == len(second) == 2):
        return False
    arrays = (*first, *second)
    if not all(hasattr(array, "shape") for array in arrays):
        return False
    kinds = [(tuple(array.shape[1:]), str(array.dtype)) for array in arrays]
    return kinds[:2] == kinds[2:]


def _stacked(inputs: Any, samples: int | None) -> Any:
    """One array of a list that has an array for each sample."""
    if type(inputs) is list and len(inputs) == samples and not is_numbers(inputs) and all(map(is_array, inputs)):
        shapes = {tuple(np.shape(array)) for array in inputs}
        if len(shapes) > 1:
            raise TombolaError(f"the inputs differ in shape, as {sorted(shapes)[0]} and {sorted(shapes)[-1]}; pad them")
        return torch.stack([as_tensors(array, double=True) for array in inputs])
    return inputs
