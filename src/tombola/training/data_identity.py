"""What a task's data are, in a few bytes, and what it calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tombola.tickets import digest_of
from tombola.training.randomness import own_randomness
from tombola.training.task import Task, Varied


def data_digest(task: Task) -> str:
    """The task's own digest of its data; else of its first training and test batches."""
    own = getattr(task, "data_digest", None)
    if own is not None:
        return own
    with own_randomness(torch.device("cpu"), 0):
        batches = {split: next(iter(task.batches(split, 0, 0))) for split in ("train", "test")}
    return digest_of(dict(_tensors(batches)))


def fingerprint(text: str) -> str:
    """A text in a few bytes."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def beneath(task: Any, name: str) -> Any:
    """What a task calls, beneath variations of it that leave this as it is."""
    while isinstance(task, Varied) and getattr(type(task), name) is getattr(Varied, name):
        task = task.task
    return getattr(task, name)


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors within a batch by their places; what is no tensor, as the bytes of its text."""
    if isinstance(value, Mapping | tuple | list):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(part, f"{name}/{key}")
    elif isinstance(value, Tensor):
        yield name, value
    else:
        yield name, torch.frombuffer(bytearray(repr(value).encode()), dtype=torch.uint8)
