"""n:m selection: keep n of every m weights that lie side by side along a layer's inputs."""

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

    Where m does not divide a layer's number of inputs, some are left over. These are ranked together over all layers,
    so that the mask keeps round-half-even(n / m · size) in all.

    Args:
        scores: one tensor a layer, by name, of shape (outputs, inputs, …); larger = keep.
        m: the size of a group.
        density: the kept share of a group, in (0, 1].
        within: an earlier mask; only what it keeps can be kept.

    Raises:
        ScoresNaN: if a score is NaN.
        TombolaError: if `within` leaves too few weights of a group.

    Examples:
        >>> import torch
        >>> select_pattern({"a": torch.tensor([[1.0, 4.0, 3.0, 2.0]])}, 4, 0.5)["a"].tolist()
        [[False, True, True, False]]
    """
    n = math.ceil(density * m - 1e-9)  # a product such as 3.0000000004 is 3
    flat = flat_scores(scores)
    shapes = {name: tuple(score.shape) for name, score in scores.items()}
    kept: dict[str, np.ndarray] = {}
    rest: dict[str, np.ndarray] = {}
    ties = in_groups = 0
    for name, values in flat.items():
        alive = within.bits[name].array() if within is not None else np.ones(shapes[name], bool)
        tie_breaker = hashes(np.arange(values.size), [(name, values.size)]).reshape(shapes[name])
        groups, alive_groups, tie_breaker_groups = (
            _groups(array, m) for array in (values.reshape(shapes[name]), alive, tie_breaker)
        )
        if (alive_groups.sum(-1) < n).any():
            raise TombolaError(
                f"`within` leaves fewer than {n} of {m} inputs of '{name}' somewhere, too few for {n}:{m}"
            )
        chosen, layer_ties = _best_of_groups(np.where(alive_groups, groups, -np.inf), tie_breaker_groups, n)
        ties, in_groups = ties + layer_ties, in_groups + chosen.size // m * n
        kept[name], rest[name] = _into_layer(chosen, shapes[name], m)
    budget = round(n / m * sum(math.prod(shape) for shape in shapes.values())) - in_groups
    if budget:
        left_over = Mask({name: Bits.of(layer) for name, layer in rest.items()})
        extra = select(scores, budget / left_over.size, within=left_over if within is None else left_over & within)
        kept = {name: layer | extra.bits[name].array() for name, layer in kept.items()}
        ties += extra.ties
    warn_of_ties(ties, in_groups + budget)
    return Mask({name: Bits.of(layer) for name, layer in kept.items()}, ties)


def _groups(array: np.ndarray, m: int) -> np.ndarray:
    """Groups of m neighbours along the inputs, as the last axis; the inputs left over are not in any."""
    inputs_last = np.moveaxis(array, min(1, array.ndim - 1), -1)
    grouped = inputs_last.shape[-1] // m * m
    return inputs_last[..., :grouped].reshape(*inputs_last.shape[:-1], -1, m)


def _best_of_groups(groups: np.ndarray, tie_breaker: np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """Which n of each group are highest, and how many of them a tie decided: the smallest of `tie_breaker` stay."""
    m = groups.shape[-1]
    threshold = np.partition(groups, m - n, axis=-1)[..., m - n, None]
    chosen, at_threshold = groups > threshold, groups == threshold
    places_left = n - chosen.sum(-1)
    tied = at_threshold.sum(-1) > places_left
    chosen |= at_threshold & ~tied[..., None]
    if tied.any():  # only these few groups are sorted
        order = np.lexsort((tie_breaker[tied], -groups[tied]), axis=-1)
        first_n = np.zeros(order.shape, bool)
        np.put_along_axis(first_n, order[..., :n], True, -1)
        chosen[tied] = first_n
    return chosen, int(places_left[tied].sum())


def _into_layer(chosen: np.ndarray, shape: tuple[int, ...], m: int) -> tuple[np.ndarray, np.ndarray]:
    """The choice in the layer's own shape, and the positions that belong to no group."""
    kept, rest = np.zeros(shape, bool), np.zeros(shape, bool)
    axis = min(1, len(shape) - 1)
    # Views: what is written to them lands in the two arrays above.
    kept_view, rest_view = np.moveaxis(kept, axis, -1), np.moveaxis(rest, axis, -1)
    grouped = shape[axis] // m * m
    kept_view[..., :grouped] = chosen.reshape(*kept_view.shape[:-1], grouped)
    rest_view[..., grouped:] = True
    return kept, rest
