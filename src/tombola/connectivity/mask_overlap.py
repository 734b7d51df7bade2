"""How much two masks agree: intersection over union and Hamming distance, as a whole and layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tombola.errors import TombolaError
from tombola.tickets import Mask


@dataclass(frozen=True)
class Overlap:
    """How much two masks agree.

    Args:
        iou: positions that both keep, over those that either keeps; 1 where neither keeps any.
        expected: the iou of two random masks with as many kept positions in each layer (a ratio of means).
        hamming: the share of all positions in which they differ.
        layers: the iou and the Hamming distance of each parameter.
    """

    iou: float
    expected: float
    hamming: float
    layers: dict[str, tuple[float, float]]


def overlap(first: Mask, second: Mask) -> Overlap:
    """Compare two masks of one network.

    Args:
        first: one mask.
        second: the other.

    Raises:
        TombolaError: if they belong to different networks.

    Examples:
        >>> import torch
        >>> a, b = (Mask.of({"w": torch.tensor(kept)}) for kept in ([1, 1, 0, 0], [1, 0, 1, 0]))
        >>> found = overlap(a, b)
        >>> round(found.iou, 3), round(found.expected, 3), found.hamming
        (0.333, 0.333, 0.5)
    """
    both, either, differ = first & second, first | second, first ^ second
    layers = {
        name: (_ratio(both.kept(name), either.kept(name)), _ratio(differ.kept(name), bits.size, empty=0.0))
        for name, bits in first.bits.items()
    }
    by_chance = sum(first.kept(name) * second.kept(name) / max(bits.size, 1) for name, bits in first.bits.items())
    union = first.total_kept + second.total_kept - by_chance
    return Overlap(
        _ratio(both.total_kept, either.total_kept),
        _ratio(by_chance, union),
        _ratio(differ.total_kept, differ.size, empty=0.0),
        layers,
    )


def distance_matrix(masks: Sequence[Mask], by: Literal["iou", "hamming"] = "iou") -> list[list[float]]:
    """The distances of masks from each other, as rounds of a search, seeds or methods.

    Args:
        masks: of one network.
        by: 1 − iou, or the Hamming distance.

    Returns:
        One row a mask, symmetric, with zeros on its diagonal.

    Raises:
        TombolaError: if the masks belong to different networks, or there is no such distance.

    Examples:
        >>> import torch
        >>> a = Mask.of({"w": torch.tensor([True, False])})
        >>> distance_matrix([a, ~a], by="hamming")
        [[0.0, 1.0], [1.0, 0.0]]
    """
    if by not in ("iou", "hamming"):
        raise TombolaError(f"there is no distance '{by}'; give iou or hamming")
    rows = [[0.0] * len(masks) for _ in masks]
    for at, first in enumerate(masks):
        for other in range(at):
            found = overlap(first, masks[other])
            rows[at][other] = rows[other][at] = 1 - found.iou if by == "iou" else found.hamming
    return rows


def _ratio(part: float, whole: float, empty: float = 1.0) -> float:
    return part / whole if whole else empty
