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
from tombola.tickets.sharding import whole

SAMPLE = 1 << 16
"""About how many scores are sampled to bracket a threshold; where there are no more than these, none are."""


class TieWarning(UserWarning):
    """A hash, and not a score, decided more than 1 % of what is kept, because scores were equal."""


class ScoresNaN(TombolaError):
    """Some scores are NaN, mostly because the training that they come from has diverged."""


def select(
    scores: Mapping[str, Tensor],
    density: float | None,
    *,
    scope: Scope = "global",
    within: Mask | None = None,
    floor: int | Mapping[str, int] = 0,
) -> Mask:
    """The mask that keeps the units with the highest scores: exactly round-half-even(density · n) of n.

    A fixed hash of (name, position) breaks ties, so that equal scores give no layer or position an advantage.

    Args:
        scores: one tensor a layer, by name; larger = keep.
        density: the kept share of all units, in (0, 1]; None if `scope` is a mapping.
        scope: how the layers share the units: `global`, one ranking over all layers; `layerwise`, the same density in
            each layer; `erk` (Evci et al., ICML 2020) or `er`; `smart-ratio` or `smart-ratio-vgg` (Su et al., NeurIPS
            2020); one of these with settings (`ErdosRenyi`, `SmartRatio`); or a mapping from layer to density.
        within: an earlier mask; only what it keeps can be kept.
        floor: units that each layer keeps at least, as far as it has them: one number, or one by layer.

    Raises:
        ScoresNaN: if a score is NaN.
        TombolaError: if there are no scores, or the density, scope, floors and `within` contradict each other.

    Examples:
        >>> scores = {"a": torch.tensor([3.0, 2.0]), "b": torch.tensor([1.0, 0.0])}
        >>> select(scores, 0.5).counts, select(scores, 0.5, scope="layerwise").counts
        ({'a': 2, 'b': 0}, {'a': 1, 'b': 1})
        >>> select(scores, 0.5, floor=1)["b"].tolist()
        [True, False]
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
        kept, ties = _top_above_floors(flat, alive, budget, floors)
    else:
        kept, ties = _top_of_each(flat, alive, quotas(shapes, budget, scope, room, floors))
    warn_of_ties(ties, budget)
    return Mask({name: Bits.of(kept[name].reshape(shapes[name])) for name in scores}, ties)


def warn_of_ties(ties: int, kept: int) -> None:
    """Warn (TieWarning) if ties decided more than 1 % of what is kept.

    Args:
        ties: how many kept units were preferred over dropped units of equal score.
        kept: how many units are kept.
    """
    if ties > 0.01 * kept:
        warnings.warn(
            f"{ties} of {kept} kept units ({ties / kept:.1%}) have the same score as units that were dropped; "
            "a fixed hash decided between them",
            TieWarning,
            stacklevel=3,
        )


def flat_scores(scores: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Scores as flat arrays of one precision: float64 if any score has it, else float32.

    Raises:
        ScoresNaN: if a score is NaN.
        TombolaError: if there are no scores.
    """
    if not scores:
        raise TombolaError("there is nothing to select from: the network has no prunable weight")
    dtype = torch.float64 if any(s.dtype == torch.float64 for s in scores.values()) else torch.float32
    flat = {name: whole(score).to("cpu", dtype).reshape(-1) for name, score in scores.items()}
    for name, values in flat.items():
        # A sum is faster than a test of each value; it is NaN also where +inf and -inf meet, which may be scores.
        if values.sum().isnan() and values.isnan().any():
            raise ScoresNaN(f"the scores of '{name}' contain NaN; check the loss and the data that they came from")
    return {name: values.numpy() for name, values in flat.items()}


def _budget(shapes: Mapping[str, tuple[int, ...]], density: float | None, scope: Scope) -> int:
    """How many units are kept in all."""
    size = sum(math.prod(shape) for shape in shapes.values())
    explicit = round(explicit_units(shapes, scope).sum()) if isinstance(scope, Mapping) else None
    if density is None:
        if explicit is None:
            raise TombolaError(
                "no density was given; give one in (0, 1], or a density for each layer as `scope`; whole units take a "
                "target in its place, as flops=0.5"
            )
        return explicit
    density = as_density(density)
    budget = round(density * size)
    # Rounded densities may be off by one unit a layer; a larger difference is a contradiction.
    if explicit is not None and abs(explicit - budget) > len(shapes):
        raise TombolaError(
            f"the densities given for each layer keep {explicit:,} of {size:,} units, but density {density:g} "
            f"asks for {budget:,}: make the two agree, as density {explicit / size:.6g}"
        )
    return budget


def _floors(floor: int | Mapping[str, int], names: list[str], room: np.ndarray) -> np.ndarray:
    """The least that each layer keeps, at most what it has room for."""
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


def _top_above_floors(flat: Arrays, alive: Arrays | None, budget: int, floors: np.ndarray) -> tuple[Arrays, int]:
    """Each layer's floor first, then the best of all that remains."""
    if not floors.any():
        return _top(flat, alive, budget)
    reserved, ties = _top_of_each(flat, alive, floors)
    rest = {name: ~at_floor & alive[name] if alive else ~at_floor for name, at_floor in reserved.items()}
    kept, more_ties = _top(flat, rest, budget - int(floors.sum()))
    return {name: kept[name] | at_floor for name, at_floor in reserved.items()}, ties + more_ties


def _top_of_each(flat: Arrays, alive: Arrays | None, counts: np.ndarray) -> tuple[Arrays, int]:
    """The best `counts` of each layer by itself."""
    kept, ties = {}, 0
    for (name, values), count in zip(flat.items(), counts, strict=True):
        layer, layer_ties = _top({name: values}, {name: alive[name]} if alive else None, int(count))
        kept |= layer
        ties += layer_ties
    return kept, ties


def _top(flat: Arrays, candidates: Arrays | None, count: int) -> tuple[Arrays, int]:
    """Which `count` of the candidates of all layers together are highest, and how many of them a tie decided."""
    candidates = candidates or {name: np.ones(values.shape, bool) for name, values in flat.items()}
    if count == 0:
        return {name: np.zeros_like(layer) for name, layer in candidates.items()}, 0
    if count == sum(int(np.count_nonzero(layer)) for layer in candidates.values()):
        return {name: layer.copy() for name, layer in candidates.items()}, 0
    threshold = _kth_candidate(list(flat.values()), list(candidates.values()), count)
    kept = {name: (values >= threshold) & candidates[name] for name, values in flat.items()}
    surplus = sum(int(np.count_nonzero(layer)) for layer in kept.values()) - count
    if surplus == 0:
        return kept, 0
    # More candidates equal the threshold than fit. Only these are hashed, since hashing all would cost far more than
    # the partition; those with the smallest hashes stay.
    at_threshold = [(values == threshold) & candidates[name] for name, values in flat.items()]
    layers = [(name, values.size) for name, values in flat.items()]
    tied = np.flatnonzero(np.concatenate(at_threshold))
    ties_kept = tied.size - surplus
    dropped = np.zeros(sum(size for _, size in layers), bool)
    dropped[tied[np.argpartition(hashes(tied, layers), ties_kept - 1)[ties_kept:]]] = True
    for name, layer in zip(kept, np.split(dropped, np.cumsum([size for _, size in layers])[:-1]), strict=True):
        kept[name] &= ~layer
    return kept, ties_kept


def _kth_candidate(parts: list[np.ndarray], candidates: list[np.ndarray], count: int) -> np.floating:
    """The `count`-th largest of the candidates, which are bool arrays of the parts' shapes."""
    pairs, size = list(zip(parts, candidates, strict=True)), sum(part.size for part in parts)
    stride = max(size // SAMPLE, 16)
    sample = np.concatenate([part[::stride][candidate[::stride]] for part, candidate in pairs])
    if size > SAMPLE and sample.size:
        # A sample brackets the value, so that few values are partitioned. The bracket reaches at least eight
        # standard deviations of the rank to each side; where it misses nevertheless, all values are partitioned below.
        rank = sample.size * (1 - count / sum(int(np.count_nonzero(candidate)) for candidate in candidates))
        width = 4 * math.sqrt(sample.size)
        ends = [int(np.clip(rank + side * width, 0, sample.size - 1)) for side in (-1, 1)]
        low, high = np.partition(sample, ends)[ends]
        above, bracket = 0, []
        for part, candidate in pairs:
            over = (part > high) & candidate
            above += int(np.count_nonzero(over))
            bracket.append(part[((part >= low) & candidate) ^ over])
        if above < count <= above + sum(part.size for part in bracket):
            return _kth_value(np.concatenate(bracket), count - above)
    return _kth_value(np.concatenate([part[candidate] for part, candidate in pairs]), count)


def kth_largest(tensors: Sequence[Tensor], count: int) -> float | Tensor:
    """The `count`-th largest element of all tensors together.

    Args:
        tensors: tensors of any shape, all on one device.
        count: 1 for the largest element.

    Returns:
        A number; on a GPU a tensor there, so that nothing waits for it.

    Examples:
        >>> kth_largest([torch.tensor([3.0, 1.0]), torch.tensor([2.0])], 2)
        2.0
    """
    # On the CPU, NumPy's partition is much faster than torch.kthvalue.
    if tensors[0].device.type != "cpu":
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        return flat.kthvalue(len(flat) - count + 1).values
    if count == 1:
        return max(float(tensor.max()) for tensor in tensors)
    # NumPy has no bf16; in float32 its numbers are the same.
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    parts = [(values.float() if values.dtype == torch.bfloat16 else values).numpy() for values in flat]
    return float(_kth_candidate(parts, [np.ones(part.shape, bool) for part in parts], count))


def _kth_value(values: np.ndarray, count: int) -> np.floating:
    return np.partition(values, values.size - count)[values.size - count]


def hashes(positions: np.ndarray, layers: list[tuple[str, int]]) -> np.ndarray:
    """A fixed 64-bit hash (splitmix64) of each position, from its layer's name and its index within the layer.

    Args:
        positions: indices into all layers' values, one layer after another.
        layers: name and size of each layer, in that order.
    """
    ends = np.cumsum([size for _, size in layers])
    layer = np.searchsorted(ends, positions, side="right")
    starts = np.concatenate([[0], ends[:-1]])
    names = np.array([zlib.crc32(name.encode()) for name, _ in layers], np.uint64)
    mixed = (names[layer] << np.uint64(32)) + (positions - starts[layer]).astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
