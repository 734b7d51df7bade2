"""n:m selection: so many of every m weights that lie side by side along a layer's inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from tombola.errors import TombolaError
from tombola.tickets.mask import Bits, Mask
from tombola.tickets.selection import flat_scores, hashes, select, warn_of_ties


def select_pattern(scores: Mapping[str, Tensor], m: int, density: float, within: Mask | None = None) -> Mask:
    """The mask that keeps the best ⌈density · m⌉ of every m inputs of each output (and kernel position).

    scores: one tensor a layer of shape (outputs, inputs, …), larger = keep. Inputs that are left over where m does not
    divide their number are ranked together over all layers, so that the whole keeps round-half-even(n / m · size).
    within: choose only among what this mask keeps. Raises TombolaError where that cannot be.

    Examples:
        >>> import torch
        >>> select_pattern({"a": torch.tensor([[1.0, 4.0, 3.0, 2.0]])}, 4, 0.5)["a"].tolist()
        [[False, True, True, False]]
    """
    n = math.ceil(density * m - 1e-9)
    flat = flat_scores(scores)
    shapes = {name: tuple(score.shape) for name, score in scores.items()}
    kept: dict[str, np.ndarray] = {}
    rest: dict[str, np.ndarray] = {}
    ties = whole = 0
    for name, values in flat.items():
        alive = within.bits[name].array() if within is not None else np.ones(shapes[name], bool)
        place = hashes(np.arange(values.size), [(name, values.size)]).reshape(shapes[name])
        groups, alive_groups, place_groups = (
            _groups(array, m) for array in (values.reshape(shapes[name]), alive, place)
        )
        if (alive_groups.sum(-1) < n).any():
            raise TombolaError(
                f"`within` leaves fewer than {n} of {m} inputs of '{name}' somewhere, too few for {n}:{m}"
            )
        chosen, decided = _best(np.where(alive_groups, groups, -np.inf), place_groups, n)
        ties, whole = ties + decided, whole + chosen.size // m * n
        kept[name], rest[name] = _scattered(chosen, shapes[name], m)
    budget = round(n / m * sum(math.prod(shape) for shape in shapes.values())) - whole
    if budget:
        open_places = Mask({name: Bits.of(own) for name, own in rest.items()})
        size = sum(own.size for own in rest.values())
        extra = select(scores, budget / size, within=open_places if within is None else open_places & within)
        kept = {name: own | extra.bits[name].array() for name, own in kept.items()}
        ties += extra.ties
    warn_of_ties(ties, whole + budget)
    return Mask({name: Bits.of(own) for name, own in kept.items()}, ties)


def _groups(array: np.ndarray, m: int) -> np.ndarray:
    """Groups of m neighbours along the inputs, as the last axis; the inputs left over are not in any."""
    last = np.moveaxis(array, min(1, array.ndim - 1), -1)
    whole = last.shape[-1] // m * m
    return last[..., :whole].reshape(*last.shape[:-1], -1, m)


def _best(groups: np.ndarray, place: np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """Which n of each group are highest, and how many a tie decided; a hash of their place decides it."""
    m = groups.shape[-1]
    threshold = np.partition(groups, m - n, axis=-1)[..., m - n, None]
    chosen, level = groups > threshold, groups == threshold
    wanted = n - chosen.sum(-1)
    tied = level.sum(-1) > wanted
    chosen |= level & ~tied[..., None]
    if tied.any():
        order = np.lexsort((place[tied], -groups[tied]), axis=-1)
        among = np.zeros(order.shape, bool)
        np.put_along_axis(among, order[..., :n], True, -1)
        chosen[tied] = among
    return chosen, int(wanted[tied].sum())


def _scattered(chosen: np.ndarray, shape: tuple[int, ...], m: int) -> tuple[np.ndarray, np.ndarray]:
    """The choice in the layer's own shape, and the places that belong to no whole group."""
    kept, rest = np.zeros(shape, bool), np.zeros(shape, bool)
    axis = min(1, len(shape) - 1)
    inside, outside = np.moveaxis(kept, axis, -1), np.moveaxis(rest, axis, -1)
    whole = shape[axis] // m * m
    inside[..., :whole] = chosen.reshape(*inside.shape[:-1], whole)
    outside[..., whole:] = True
    return kept, rest
