"""The Cubist Spiral (Zhang & Papyan, ICML 2024): two octagonal spirals in the plane, generated without noise."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from tombola.zoo.normalisation import Data

POINTS = 50_000
VERTICES, TURNS_FROM, TURNS_TO, TURNED = 17, 1.0, 5.0, 0.4
GROWTH, HALF_GAP = 10.0, 15.0


def cubist_spiral() -> Data:
    """49,982 points of shape (2,) in two classes; each split has all of them, as in the paper.

    Each spiral has 16 straight segments with equally spaced points, both ends included. The coordinates are
    standardised over all points.

    Returns:
        The splits "train", "validation" and "test", which are equal.

    Examples:
        >>> inputs, targets = cubist_spiral()["train"]
        >>> inputs.shape, targets.unique().tolist()
        (torch.Size([49982, 2]), [0, 1])
    """
    angles = torch.linspace(TURNS_FROM, TURNS_TO, VERTICES, dtype=torch.float64) * torch.pi + TURNED * torch.pi
    radius = GROWTH * angles + torch.pi
    curves = [_polar(radius + side, angles) for side in (HALF_GAP, -HALF_GAP)]
    corner = torch.cat(curves).min(0).values
    spirals = [_filled(curve - corner) for curve in curves]
    points = torch.cat(spirals).float()
    inputs = (points - points.mean(0)) / points.std(0)
    targets = torch.cat([torch.full((len(spiral),), label) for label, spiral in enumerate(spirals)])
    return {split: (inputs.clone(), targets.clone()) for split in ("train", "validation", "test")}


def _polar(radius: Tensor, angles: Tensor) -> Tensor:
    return torch.stack([radius * angles.cos(), radius * angles.sin()], 1)


def _filled(curve: Tensor) -> Tensor:
    """Points along a curve's segments, each segment from its end to its beginning, in proportion to its length."""
    # In float32, and truncated: both decide the counts, and so the points.
    lengths = (curve[1:] - curve[:-1]).norm(dim=1).float()
    counts = (0.5 * POINTS * lengths / lengths.sum()).int().tolist()
    return torch.cat([_line(end, begin, count) for (begin, end), count in zip(pairwise(curve), counts, strict=True)])


def _line(begin: Tensor, end: Tensor, count: int) -> Tensor:
    return begin + torch.linspace(0, 1, count, dtype=torch.float64)[:, None] * (end - begin)
