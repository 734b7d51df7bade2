"""From scores to a mask: exact counts, nested, ties broken by a fixed hash."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tombola.errors import TombolaError, unknown
from tombola.tickets.mask import Bits, Mask
from tombola.tickets.shares import Scope, explicit_units, quotas


class TieWarning(UserWarning):
    """More than 1 % of what is kept was decided by a hash, because scores were equal."""


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
        picks = [
            _top(f, alive[name] if alive else None, int(k), [(name, f.size)])
            for (name, f), k in zip(flat.items(), share, strict=True)
        ]
        kept, ties = (
            {name: pick for name, (pick, _) in zip(flat, picks, strict=True)},
            sum(t for _, t in picks),
        )
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
    flat = {name: score.detach().to("cpu", wide).reshape(-1).numpy() for name, score in scores.items()}
    for name, values in flat.items():
        with np.errstate(all="ignore"):
            suspicious = np.isnan(values.sum())
        if suspicious and np.isnan(values).any():
            raise TombolaError(f"the scores of '{name}' contain NaN; check the loss and the data that they came from")
    return flat


def _budget(shapes: Mapping[str, tuple[int, ...]], density: float | None, scope: Scope) -> int:
    size = sum(math.prod(shape) for shape in shapes.values())
    explicit = round(explicit_units(shapes, scope).sum()) if isinstance(scope, Mapping) else None
    if density is None:
        if explicit is None:
            raise TombolaError("no density was given; give one in (0, 1], or a density for each layer as `scope`")
        return explicit
    if not (isinstance(density, int | float) and 0 < density <= 1):
        raise TombolaError(f"density is {density}; give the share of units to keep, above 0 and at most 1")
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


def _global(
    flat: dict[str, np.ndarray], alive: dict[str, np.ndarray] | None, budget: int, floors: np.ndarray
) -> tuple[dict[str, np.ndarray], int]:
    """Each layer's floor first, then the best of all that remains."""
    sizes = [(name, f.size) for name, f in flat.items()]
    candidates = np.concatenate(list(alive.values())) if alive else None
    reserved, ties = None, 0
    if floors.any():
        picks = [
            _top(f, alive[name] if alive else None, int(k), [(name, f.size)])
            for (name, f), k in zip(flat.items(), floors, strict=True)
        ]
        reserved, ties = np.concatenate([pick for pick, _ in picks]), sum(t for _, t in picks)
        candidates = ~reserved if candidates is None else candidates & ~reserved
    kept, more_ties = _top(np.concatenate(list(flat.values())), candidates, budget - int(floors.sum()), sizes)
    if reserved is not None:
        kept |= reserved
    bounds = np.cumsum([size for _, size in sizes])[:-1]
    return dict(zip(flat, np.split(kept, bounds), strict=True)), ties + more_ties


def _top(
    values: np.ndarray, candidates: np.ndarray | None, count: int, layers: list[tuple[str, int]]
) -> tuple[np.ndarray, int]:
    """Which `count` of the candidates are highest (bool, flat), and how many of them a tie decided.

    A partition finds the threshold; only what equals it is hashed.
    """
    room = values.size if candidates is None else int(np.count_nonzero(candidates))
    if count == 0:
        return np.zeros(values.shape, bool), 0
    if count == room:
        return np.ones(values.shape, bool) if candidates is None else candidates.copy(), 0
    if candidates is not None:
        values = np.where(candidates, values, -np.inf)
    threshold = _kth_largest(values, count)
    kept = values > threshold
    level = values == threshold
    if candidates is not None:
        kept &= candidates
        level &= candidates
    tied, wanted = np.flatnonzero(level), count - int(np.count_nonzero(kept))
    if wanted == tied.size:
        kept[tied] = True
        return kept, 0
    kept[tied[np.argpartition(hashes(tied, layers), wanted - 1)[:wanted]]] = True
    return kept, wanted


def _kth_largest(pool: np.ndarray, count: int) -> np.floating:
    """The `count`-th largest value; in a large pool a sample brackets it, so that few values are partitioned."""
    if pool.size > 1 << 20:
        sample = np.sort(pool[:: pool.size >> 16])
        rank = sample.size * (1 - count / pool.size)
        low, high = (sample[int(np.clip(rank + side * 1024, 0, sample.size - 1))] for side in (-1, 1))
        above, bracket = int(np.count_nonzero(pool > high)), pool[(pool >= low) & (pool <= high)]
        if above < count <= above + bracket.size:
            pool, count = bracket, count - above
    return np.partition(pool, pool.size - count)[pool.size - count]


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
