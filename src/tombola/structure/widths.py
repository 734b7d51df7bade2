"""How many units groups keep: none fewer where a group is protected, and widths that are multiples of a number."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
from torch import Tensor, nn

from tombola.errors import TombolaError, unknown
from tombola.tickets import Mask, modules_of, parameters_of, select

WIDEST = 1024
"""What widths can be multiples of."""


def check_widths(round_to: int, protect: Sequence[str]) -> None:
    """TombolaError for a multiple that is none, or a pattern without a name."""
    if not 1 <= round_to <= WIDEST:
        raise TombolaError(f"round_to is {round_to}; give what widths shall be multiples of, from 1 to {WIDEST}, as 8")
    if not all(protect):
        raise TombolaError("protect has an empty name; give names of layers, or patterns as 'layer4.*'")


def check_names(protect: Sequence[str], model: nn.Module) -> None:
    """TombolaError if a pattern names no module and no parameter of a network."""
    if not protect:
        return
    names = [*(name for name in modules_of(model) if name), *parameters_of(model)]
    for pattern in protect:
        if not any(is_named(name, (pattern,)) for name in names):
            raise unknown("layer to protect", pattern, names)


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name, or that of a module around it, matches one of some patterns.

    Examples:
        >>> is_named("layer4.0.conv1", ("layer4",)), is_named("layer4.0.conv1", ("*.conv?",)), is_named("fc2", ("fc",))
        (True, True, False)
    """
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in patterns)


def without(worths: Mapping[str, Tensor], protected: Collection[str]) -> dict[str, Tensor]:
    """What the units of groups are worth that are not protected; TombolaError if all are."""
    free = {name: own for name, own in worths.items() if name not in protected}
    if worths and not free:
        raise TombolaError("all that could be removed is protected; protect fewer layers")
    return free


def of_whole_widths(
    kept: Mask, worths: Mapping[str, Tensor], steps: Mapping[str, int], within: Mask | None, floors: Mapping[str, int]
) -> Mask:
    """The kept units, so many of each group that its width is a multiple: no more in all than before.

    Args:
        kept: the kept units as their scores alone decide.
        worths: what the units of each group are worth.
        steps: of how many units a multiple stays in each group; a group that has fewer is left as it is.
        within: the kept units of an earlier round.
        floors: units that each group keeps at least.

    Raises:
        TombolaError: if no multiples are so few.
    """
    if all(steps[name] == 1 for name in kept):
        return kept
    shares = _multiples(kept, steps, within, floors)
    return select(worths, None, scope=shares, within=within)


def _multiples(
    kept: Mask, steps: Mapping[str, int], within: Mask | None, floors: Mapping[str, int]
) -> dict[str, float]:
    names = list(kept)
    sizes = np.array([kept.bits[name].size for name in names])
    counts = np.array([kept.kept(name) for name in names])
    room = sizes if within is None else np.array([within.kept(name) for name in names])
    step = np.array([steps[name] if steps[name] <= size else 1 for name, size in zip(names, sizes, strict=True)])
    fewest = (least_multiple(floors.get(name, 0), steps[name], size) for name, size in zip(names, sizes, strict=True))
    least = np.minimum(np.array([*fewest]), room)
    # A group stays whole where that is what its scores say, whether its size is a multiple or not.
    chosen = np.where(counts == room, room, np.clip(counts // step * step, least, room))
    while (spare := int(counts.sum() - chosen.sum())) < 0:
        less = np.where(chosen - step >= least, (chosen - counts) / step, -np.inf)
        if np.isneginf(less).all():
            raise TombolaError(
                f"the widths that are multiples keep {chosen.sum():,} units at least, and the density leaves "
                f"{counts.sum():,}; give a higher density, or a smaller round_to"
            )
        chosen[less.argmax()] -= step[less.argmax()]
    for at in np.argsort((chosen - counts) / step, kind="stable"):
        more = int(min(step[at], room[at] - chosen[at]))
        if counts[at] > chosen[at] and more <= spare:
            chosen[at] += more
            spare -= more
    return {name: float(count / size) for name, count, size in zip(names, chosen, sizes, strict=True)}


def least_multiple(floor: int, step: int, size: int) -> int:
    """The fewest units that a group of a size can keep: at least so many, and a multiple where it has as many.

    Examples:
        >>> least_multiple(3, 8, 32), least_multiple(3, 8, 6), least_multiple(0, 1, 32)
        (8, 3, 1)
    """
    step = step if step <= size else 1
    return min(size, -(-max(floor, 1) // step) * step)


def step_of(round_to: int, width: int) -> int:
    """Of how many units a multiple stays, each so many channels wide, for widths that are multiples of a number.

    Examples:
        >>> step_of(8, 1), step_of(8, 6), step_of(8, 64)
        (8, 4, 1)
    """
    return round_to // math.gcd(round_to, width)
