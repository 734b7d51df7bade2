"""Batches and outputs: tensors in tuples, mappings, dataclasses and the like, at any depth."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor."""
    return isinstance(value, Tensor)


def mapped(values: Any, change: Callable[[Any], Any], chosen: Callable[[Any], bool] = is_tensor) -> Any:
    """Change every tensor in a nest, and keep the nest.

    Args:
        values: a tensor, or tuples, lists, mappings, dataclasses and packed sequences of such, at any depth; all else
            stays as it is.
        change: gives what takes a tensor's place.
        chosen: says what is changed instead, if not tensors alone; a packed sequence's tensors are changed always.

    Returns:
        The same structure of the same types. The nest that was given stays as it is.

    Examples:
        >>> import torch
        >>> mapped({"ids": (torch.ones(1), None), "name": "a"}, lambda tensor: tensor + 1)
        {'ids': (tensor([2.]), None), 'name': 'a'}
    """
    if chosen(values):
        return change(values)
    if isinstance(values, PackedSequence):  # its batch sizes stay on the CPU, whatever happens to the rest
        data, batch_sizes, *order = values
        return PackedSequence(change(data), batch_sizes, *(mapped(indices, change) for indices in order))
    if isinstance(values, MutableMapping):
        changed = copy.copy(values)
        for key, value in values.items():
            changed[key] = mapped(value, change, chosen)
        return changed
    if isinstance(values, Mapping):
        return {key: mapped(value, change, chosen) for key, value in values.items()}
    if isinstance(values, tuple | list):
        parts = [mapped(value, change, chosen) for value in values]
        return type(values)(*parts) if hasattr(values, "_fields") else type(values)(parts)
    if _is_record(values):
        changed = copy.copy(values)
        for name, value in _fields_of(values):
            object.__setattr__(changed, name, mapped(value, change, chosen))  # the class may be frozen
        return changed
    return values


def leaves_of(values: Any) -> Iterator[Any]:
    """What a nest holds, in its order: tensors, and whatever `mapped` leaves as it is.

    Args:
        values: as of `mapped`.

    Examples:
        >>> list(leaves_of({"a": (1, "x"), "b": [None]}))
        [1, 'x', None]
    """
    parts = _parts_of(values)
    if parts is None:
        yield values
        return
    for part in parts:
        yield from leaves_of(part)


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors of a nest, in its order."""
    return [leaf for leaf in leaves_of(values) if isinstance(leaf, Tensor)]


def samples_in(values: Any) -> int | None:
    """How many samples a nest has, by its first tensor or array; of a packed sequence, how many sequences.

    Args:
        values: as of `mapped`.

    Returns:
        The number; None if there is neither tensor nor array.

    Examples:
        >>> import torch
        >>> samples_in({"ids": torch.ones(8, 40), "attention": torch.ones(8, 40)})
        8
    """
    if isinstance(values, PackedSequence):
        return int(values.batch_sizes[0])
    parts = _parts_of(values)
    if parts is None:
        return len(values) if getattr(values, "ndim", 0) else None
    return next((samples for part in parts if (samples := samples_in(part)) is not None), None)


def _parts_of(values: Any) -> Iterable[Any] | None:
    """What a nest is made of; None for what is no nest."""
    if isinstance(values, Mapping):
        return values.values()
    if isinstance(values, tuple | list):
        return values
    return [value for _, value in _fields_of(values)] if _is_record(values) else None


def _is_record(values: Any) -> bool:
    return is_dataclass(values) and not isinstance(values, type)


def _fields_of(record: Any) -> Iterator[tuple[str, Any]]:
    return ((field.name, getattr(record, field.name)) for field in fields(record) if hasattr(record, field.name))
