"""What a task calls and what lasts from call to call, though no run begins with it anew and no checkpoint holds it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tombola.nested import tensors_in
from tombola.scores.gradient_scores import nodes_behind
from tombola.tickets.torch_private import own_buffers

TOLERANCE = 1e-3
"""Of the largest number: two calls may differ in their rounding."""


class StateWarning(UserWarning):
    """Something that a task calls keeps state of its own, or parameters that nothing trains."""


class Called(NamedTuple):
    """A call of a task's network, loss or metric on a batch.

    Args:
        values: what each gave, by what it is called.
        leaves: the tensors that require a gradient and on which the loss depends.
    """

    values: Mapping[str, Any]
    leaves: list[Tensor]


def warn_of_changes(first: Mapping[str, Any], second: Mapping[str, Any], changed: Collection[str]) -> None:
    """Warn of the first thing that gave something else when it was called again, or that a call changed.

    Args:
        first: what each gave, by what it is called: network, loss or metric, in the order in which they are called.
        second: what it gave afterwards for the same batch and the same random numbers.
        changed: whose own state the second call changed.
    """
    for name, value in first.items():
        if name in changed or not _alike(value, second[name]):
            cause, home = ("or draws on a random state of its own", "parts of the network, and there in buffers")
            if name == "network":
                cause, home = "or changes its inputs in place", "buffers"
            what = "changes as it is called" if name in changed else "gives something else the second time it is called"
            _warn(
                f"the {name} {what}: it keeps state from call to call, {cause}, so that runs are not repeatable, and a "
                f"killed one goes on otherwise; let it depend on its arguments alone, or keep what lasts in {home}"
            )
            return


@contextmanager
def targets_watched(name: str, targets: Any) -> Generator[None]:
    """Warn if a block changes targets in place, which others may read after it.

    Args:
        name: what is called in the block: loss or metric.
        targets: of a batch.
    """
    given = [tensor for tensor in tensors_in(targets) if tensor.layout == torch.strided]
    before = [tensor.clone() for tensor in given]
    yield
    if not all(torch.equal(old.nan_to_num(), new.nan_to_num()) for old, new in zip(before, given, strict=True)):
        _warn(
            f"the {name} changes its targets in place, so that whatever reads them next sees others; let it change a "
            "copy, as targets = targets.clone()"
        )


@contextmanager
def buffers_kept(model: nn.Module) -> Generator[None]:
    """Put a network's buffers back after a block: what it keeps there, runs begin with anew and checkpoints hold."""
    stores = [store for part in model.modules() if (store := own_buffers(part))]
    kept = [{key: buffer if buffer is None else buffer.clone() for key, buffer in store.items()} for store in stores]
    yield
    for store, own in zip(stores, kept, strict=True):
        store.clear()
        store.update(own)


def leaves_behind(value: Tensor) -> list[Tensor]:
    """The tensors that require a gradient and from which a value was computed."""
    leaves = (getattr(node, "variable", None) for node in nodes_behind([value]))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def warn_of_untrained(first: Called, second: Called, known: Iterable[Tensor]) -> None:
    """Warn of a tensor that requires a gradient, lasts from call to call, and that no optimizer has.

    Args:
        first: a call.
        second: another one.
        known: the network's parameters, and the batch.
    """
    own, again = {id(tensor) for tensor in known}, {id(tensor) for tensor in second.leaves}
    for tensor in first.leaves:
        if id(tensor) in again - own:
            _warn(
                f"the loss depends on a tensor of shape {tuple(tensor.shape)} that requires a gradient and is none of "
                "the network's parameters, so that nothing trains it; make it one, as with nn.ModuleList or "
                "nn.Parameter, or freeze it by requires_grad_(False)"
            )
            return


def _alike(one: Any, other: Any) -> bool:
    pairs = [tensors_in(value) if tensors_in(value) else [value] for value in (one, other)]
    return len(pairs[0]) == len(pairs[1]) and all(map(_close, *pairs))


def _close(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return not isinstance(one, int | float) or bool(abs(one - other) <= TOLERANCE * abs(one)) or one != one
    if one.shape != other.shape or one.layout != torch.strided:
        return one.shape == other.shape
    one, other = one.detach().nan_to_num(), other.detach().nan_to_num()
    return not one.numel() or bool((one - other).abs().max() <= TOLERANCE * one.abs().max())


def _warn(text: str) -> None:
    warnings.warn(text, StateWarning, stacklevel=3)
