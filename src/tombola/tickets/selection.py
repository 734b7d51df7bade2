"""From scores to a mask: exact counts, nested, ties broken by a fixed hash."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tombola.errors import TombolaError, unknown
from tombola.tickets.layer_budgets import Scope, as_density, explicit_units, quotas
from tombola.tickets.mask import Bits, Mask

SAMPLE = 1 << 16


class TieWarning(UserWarning):
    """More than 1 % of what is kept was decided by a hash, because scores were equal."""


class ScoresNaN(TombolaError):
    """There are scores that are no numbers: what they came from has diverged."""


def select(
    scores: Mapping[str, Tensor],
    density: float | None,
    *,
    scope: Scope = "global",
    within: Mask | None = None,
    floor: int | Mapping[str, int] = 0,
) -> Mask:
    """The mask that keeps the highest-scored share `density` of all units, exactly round-half-even(density · n).

    scores: one tensor a layer, larger = keep. scope: `global`, one ranking over all layers; `layerwise`, the
    same density in each; `erk`; `smart-ratio` (`smart-ratio-vgg`); or a mapping from layer to density, where
    `density` may be None. within: choose only among what this mask keeps. floor: units (one number, or by
    layer) that each layer keeps at least, as far as it has them. Raises TombolaError where that cannot be.

    Examples:
        >>> mask = select({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([2.0, 0.0])}, 0.5)
        >>> mask["a"].tolist(), mask["b"].tolist()
        ([True, False], [True, False])
    """
    flat = flat_scores(scores)
    shapes = {name: tuple(score.shape) for name, score in scores.items()}
    if within is not None and within.shapes != shapes:
        raise TombolaError("`within` belongs to another network than the scores; give the mask of an earlier round")
    alive = {name: within.bits[name].array().reshape(-1) for name in scores} if within is not None else None
    room = np.array([int(alive[n].sum()) if alive else f.size for n, f in flat.items()], np.int64)
    budget = _budget(shapes, density, scope)
    floors = _floors(floor, list(scores), room)
    _check_budget(budget, room, floors, shapes, density)

    if scope == "global":
        kept, ties = _global(flat, alive, budget, floors)
    else:
        share = quotas(shapes, budget, scope, room, floors)
        kept, ties = _each(flat, alive, share)
    warn_of_ties(ties, budget)
    return Mask({name: Bits.of(kept[name].reshape(shapes[name])) for name in scores}, ties)


def warn_of_ties(ties: int, kept: int) -> None:
    """A TieWarning if more than 1 % of what is kept was decided by a tie."""
    if ties > 0.01 * kept:
        warnings.warn(
            f"{ties} of {kept} kept units ({ties / kept:.1%}) have the same score as units that were dropped; "
            "a fixed hash decided between them",
            TieWarning,
            stacklevel=3,
        )


def flat_scores(scores: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Scores as flat arrays of one precision; TombolaError if there are none, or one is NaN."""
    if not scores:
        raise TombolaError("there is nothing to select from: the network has no prunable weight")
    wide = torch.float64 if any(s.dtype == torch.float64 for s in scores.values()) else torch.float32
    wider = {name: score.detach().to("cpu", wide).reshape(-1) for name, score in scores.items()}
    for name, values in wider.items():
        if values.sum().isnan() and values.isnan().any():
            raise ScoresNaN(f"the scores of '{name}' contain NaN; check the loss and the data that they came from")
    return {name: values.numpy() for name, values in wider.items()}


def _budget(shapes: Mapping[str, tuple[int, ...]], density: float | None, scope: Scope) -> int:
    size = sum(math.prod(shape) for shape in shapes.values())
    explicit = round(explicit_units(shapes, scope).sum()) if isinstance(scope, Mapping) else None
    if density is None:
        if explicit is None:
            raise TombolaError("no density was given; give one in (0, 1], or a density for each layer as `scope`")
        return explicit
    density = as_density(density)
    budget = round(density * size)
    if explicit is not None and abs(explicit - budget) > len(shapes):
        raise TombolaError(
            f"the densities given for each layer keep {explicit:,} of {size:,} units, but density {density:g} "
            f"asks for {budget:,}: make the two agree, as density {explicit / size:.6g}"
        )
    return budget


def _floors(floor: int | Mapping[str, int], names: list[str], room: np.ndarray) -> np.ndarray:
    if isinstance(floor, Mapping):
        for name in floor:
            if name not in names:
                raise unknown("layer", name, names)
        floors = np.array([floor.get(name, 0) for name in names], np.int64)
    else:
        floors = np.full(len(names), floor, np.int64)
    if (floors < 0).any():
        raise TombolaError("a floor is negative; give the number of units that a layer keeps at least")
    return np.minimum(floors, room)


def _check_budget(budget: int, room: np.ndarray, floors: np.ndarray, shapes: Mapping, density: float | None) -> None:
    size = sum(math.prod(shape) for shape in shapes.values())
    if budget < 1:
        raise TombolaError(f"density {density} keeps not one of {size:,} units; give at least {1 / size:.2g}")
    if budget > room.sum():
        raise TombolaError(
            f"density {density} asks for {budget:,} units but `within` has only {room.sum():,} left; "
            "densities must fall from round to round"
        )
    if floors.sum() > budget:
        raise TombolaError(
            f"the floors ask for {floors.sum():,} units but density {density} keeps only {budget:,}; "
            "lower the floor or raise the density"
        )


Arrays = dict[str, np.ndarray]


def _global(flat: Arrays, alive: Arrays | None, budget: int, floors: np.ndarray) -> tuple[Arrays, int]:
    """Each layer's floor first, then the best of all that remains."""
    if not floors.any():
        return _top(flat, alive, budget)
    reserved, ties = _each(flat, alive, floors)
    rest = {name: ~held & alive[name] if alive else ~held for name, held in reserved.items()}
    kept, more_ties = _top(flat, rest, budget - int(floors.sum()))
    return {name: kept[name] | held for name, held in reserved.items()}, ties + more_ties


def _each(flat: Arrays, alive: Arrays | None, counts: np.ndarray) -> tuple[Arrays, int]:
    """The best of each layer by itself, so many of each."""
    kept, ties = {}, 0
    for (name, values), count in zip(flat.items(), counts, strict=True):
        own, decided = _top({name: values}, {name: alive[name]} if alive else None, int(count))
        kept |= own
        ties += decided
    return kept, ties


def _top(flat: Arrays, candidates: Arrays | None, count: int) -> tuple[Arrays, int]:
    """Which `count` of the candidates of all layers together are highest, and how many of them a tie decided.

    A partition finds the threshold; only what equals it is hashed.
    """
    whole = candidates or {name: np.ones(values.shape, bool) for name, values in flat.items()}
    if count == 0:
        return {name: np.zeros_like(own) for name, own in whole.items()}, 0
    if count == sum(int(np.count_nonzero(own)) for own in whole.values()):
        return {name: own.copy() for name, own in whole.items()}, 0
    threshold = _kth_largest(list(flat.values()), list(whole.values()), count)
    kept = {name: (values >= threshold) & whole[name] for name, values in flat.items()}
    surplus = sum(int(np.count_nonzero(own)) for own in kept.values()) - count
    if surplus == 0:
        return kept, 0
    level = {name: (values == threshold) & whole[name] for name, values in flat.items()}
    layers = [(name, values.size) for name, values in flat.items()]
    tied = np.flatnonzero(np.concatenate(list(level.values())))
    wanted = tied.size - surplus
    dropped = np.zeros(sum(size for _, size in layers), bool)
    dropped[tied[np.argpartition(hashes(tied, layers), wanted - 1)[wanted:]]] = True
    for name, off in zip(kept, np.split(dropped, np.cumsum([size for _, size in layers])[:-1]), strict=True):
        kept[name] &= ~off
    return kept, wanted


def _kth_largest(parts: list[np.ndarray], candidates: list[np.ndarray], count: int) -> np.floating:
    """The `count`-th largest candidate; a sample of many brackets it, so that few values are partitioned."""
    pairs, size = list(zip(parts, candidates, strict=True)), sum(part.size for part in parts)
    stride = max(size // SAMPLE, 16)
    sample = np.concatenate([part[::stride][own[::stride]] for part, own in pairs])
    if size > SAMPLE and sample.size:
        rank = sample.size * (1 - count / sum(int(np.count_nonzero(own)) for own in candidates))
        width = 4 * math.sqrt(sample.size)
        ends = [int(np.clip(rank + side * width, 0, sample.size - 1)) for side in (-1, 1)]
        low, high = np.partition(sample, ends)[ends]
        above, bracket = 0, []
        for part, own in pairs:
            over = (part > high) & own
            above += int(np.count_nonzero(over))
            bracket.append(part[((part >= low) & own) ^ over])
        if above < count <= above + sum(part.size for part in bracket):
            return _kth(np.concatenate(bracket), count - above)
    return _kth(np.concatenate([part[own] for part, own in pairs]), count)


def kth_largest(tensors: Sequence[Tensor], count: int) -> float:
    """The `count`-th largest element of tensors together, on the device where they are."""
    if tensors[0].device.type != "cpu":
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        return float(flat.kthvalue(len(flat) - count + 1).values)
    if count == 1:
        return max(float(tensor.max()) for tensor in tensors)
    parts = [tensor.detach().reshape(-1).numpy() for tensor in tensors]
    return float(_kth_largest(parts, [np.ones(part.shape, bool) for part in parts], count))


def _kth(values: np.ndarray, count: int) -> np.floating:
    return np.partition(values, values.size - count)[values.size - count]


def hashes(positions: np.ndarray, layers: list[tuple[str, int]]) -> np.ndarray:
    """A fixed 64-bit hash of (layer name, index within the layer) for each flat position (splitmix64)."""
    ends = np.cumsum([size for _, size in layers])
    layer = np.searchsorted(ends, positions, side="right")
    starts = np.concatenate([[0], ends[:-1]])
    names = np.array([zlib.crc32(name.encode()) for name, _ in layers], np.uint64)
    mixed = (names[layer] << np.uint64(32)) + (positions - starts[layer]).astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
