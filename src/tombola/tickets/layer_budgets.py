"""How layers share a budget of units: one pure function for each scope."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tombola.errors import TombolaError, unknown
from tombola.fields import check_fields
from tombola.tickets.mask import Shape


def as_density(given: Any, what: str = "units") -> float:
    """A density as a Python float.

    Args:
        given: a number, or a NumPy scalar or tensor of one number.
        what: what the density is a share of, for the error.

    Raises:
        TombolaError: unless it is above 0 and at most 1.

    Examples:
        >>> as_density(np.float32(0.5))
        0.5
    """
    density = given.item() if hasattr(given, "item") and getattr(given, "ndim", None) == 0 else given
    if not (isinstance(density, int | float) and 0 < density <= 1):
        raise TombolaError(f"density is {given}; give the share of {what} to keep, above 0 and at most 1")
    return float(density)


@dataclass(frozen=True)
class ErdosRenyi:
    """The scope of sparse random layers: a layer's density is proportional to the sum of its sides over their product.

    Args:
        kernel: whether the sides of a kernel count as sides (ERK: Evci et al., ICML 2020; the scope `erk`), or only
            inputs and outputs (Mocanu et al., Nature Communications 2018; the scope `er`).
        redistribute: whether the other layers get what a layer cannot take that is full. Without it, as in some
            published code, the network keeps less than was asked for.

    Examples:
        >>> import torch
        >>> from tombola.tickets import select
        >>> scores = {"small": torch.rand(2, 2), "large": torch.rand(50, 40)}
        >>> select(scores, 0.2, scope=ErdosRenyi(redistribute=False)).counts
        {'small': 4, 'large': 384}
        >>> select(scores, 0.2, scope="erk").counts
        {'small': 4, 'large': 397}
    """

    kernel: bool = True
    redistribute: bool = True

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class SmartRatio:
    """The scope of smart-ratio random tickets (Su et al., NeurIPS 2020), with densities that fall towards the output.

    Args:
        classifier: the density of the last layer; 0.3 in the paper.
        vgg: whether the density of layer l is also divided by l², as the paper does for VGG.

    Raises:
        TombolaError: if the classifier's density is not above 0 and at most 1.
    """

    classifier: float = 0.3
    vgg: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        as_density(self.classifier, "the classifier's weights")


Scope = (
    Literal["global", "layerwise", "er", "erk", "smart-ratio", "smart-ratio-vgg"]
    | Mapping[str, float]
    | ErdosRenyi
    | SmartRatio
)

WORDS: dict[str, ErdosRenyi | SmartRatio] = {
    "er": ErdosRenyi(kernel=False),
    "erk": ErdosRenyi(),
    "smart-ratio": SmartRatio(),
    "smart-ratio-vgg": SmartRatio(vgg=True),
}
"""The rules of random masks by the names of their scopes."""


def shares_weights(scope: Scope) -> bool:
    """Whether a scope is a rule of random masks, which shares weights among layers, whatever the units."""
    return isinstance(scope, ErdosRenyi | SmartRatio) or (isinstance(scope, str) and scope in WORDS)


def falls_short(scope: Scope) -> bool:
    """Whether a scope may keep less than the density."""
    return isinstance(scope, ErdosRenyi) and not scope.redistribute


def quotas(shapes: Mapping[str, Shape], budget: int, scope: Scope, room: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """How many units each layer keeps: between its floor and its room, and `budget` in all.

    Args:
        shapes: each layer's shape by name, in the network's order.
        budget: units kept in all; at least the sum of the floors, at most that of the room.
        scope: any but `global`, which needs scores.
        room: units that each layer has left, int64.
        floors: units that each layer keeps at least, int64.

    Returns:
        One int64 a layer.

    Raises:
        TombolaError: for a scope that does not exist or does not fit the layers.
    """
    rule = WORDS.get(scope, scope) if isinstance(scope, str) else scope
    if isinstance(rule, Mapping):
        weight = explicit_units(shapes, rule)
    elif rule == "layerwise":
        weight = np.array([math.prod(shape) for shape in shapes.values()], float)
    elif isinstance(rule, ErdosRenyi):
        weight = np.array([_sides(shape, rule.kernel) for shape in shapes.values()], float)
        if not rule.redistribute:
            shares = np.clip(weight * (budget / weight.sum()), floors, room)
            return largest_remainder(shares, floors, room, min(budget, round(shares.sum())))
    elif isinstance(rule, SmartRatio):
        weight = smart_ratio(shapes, budget, vgg=rule.vgg, classifier=rule.classifier)
    else:
        raise unknown("scope", str(scope), ["global", "layerwise", *WORDS])
    # Smart-ratio and explicit densities are units already and are not scaled where they meet the budget; sizes and ERK
    # are proportions, which are scaled until they do.
    shares = np.clip(weight, floors, room)
    if abs(shares.sum() - budget) >= 1:
        shares = water_fill(weight, floors, room, budget)
    return largest_remainder(shares, floors, room, budget)


def water_fill(weight: np.ndarray, floors: np.ndarray, room: np.ndarray, budget: int) -> np.ndarray:
    """clip(t · weight, floors, room) for the one t at which the shares sum to the budget.

    A layer that is full, or at its floor, thereby hands its surplus to all others in proportion. ERK so redistributes
    what a full layer cannot take (Evci et al., ICML 2020). Its density is the sum of a layer's dimensions over their
    product, so that its weight, density times size, is the sum of the dimensions.

    Args:
        weight: each layer's proportion.
        floors: the least that each layer keeps.
        room: the most that each layer keeps.
        budget: what the shares sum to.
    """
    floors, room = floors.astype(float), room.astype(float)
    # The total is piecewise linear in t, with a knot wherever a layer leaves its floor or fills up.
    safe = np.where(weight > 0, weight, 1.0)
    knots = np.unique(np.concatenate([[0.0], (floors / safe)[weight > 0], (room / safe)[weight > 0]]))
    totals = np.clip(knots[:, None] * weight, floors, room).sum(axis=1)
    if totals[-1] < budget:
        return floors + (room - floors) * (budget - floors.sum()) / max((room - floors).sum(), 1.0)
    return np.clip(np.interp(budget, totals, knots) * weight, floors, room)


def largest_remainder(shares: np.ndarray, floors: np.ndarray, room: np.ndarray, budget: int) -> np.ndarray:
    """Whole shares that sum to the budget: each is rounded down, and the largest remainders get what is left.

    Args:
        shares: real shares, whose sum may be off the budget.
        floors: the least that each layer keeps.
        room: the most that each layer keeps.
        budget: what the whole shares sum to.

    Examples:
        >>> largest_remainder(np.array([1.5, 2.7, 0.8]), np.zeros(3, int), np.full(3, 9), 5)
        array([1, 3, 1])
    """
    # A share that is whole but for rounding, as 2.9999999999, must not lose a unit.
    counts = np.clip(np.floor(shares + 1e-9).astype(np.int64), floors, room)
    remainder = shares - counts
    while (missing := budget - int(counts.sum())) != 0:
        open_layers = np.flatnonzero(counts < room) if missing > 0 else np.flatnonzero(counts > floors)
        # A stable sort gives a tie to the earlier layer, on every machine.
        chosen = open_layers[np.argsort(-np.sign(missing) * remainder[open_layers], kind="stable")][: abs(missing)]
        counts[chosen] += np.sign(missing)
        remainder[chosen] -= np.sign(missing)
    return counts


def _sides(shape: Shape, kernel: bool) -> float:
    """A layer's density times its size, but for a factor that all layers have in common."""
    return sum(shape) if kernel else sum(shape[:2]) * math.prod(shape[2:])


def smart_ratio(shapes: Mapping[str, Shape], budget: int, *, vgg: bool = False, classifier: float = 0.3) -> np.ndarray:
    """Smart-ratio shares of random tickets (Su et al., NeurIPS 2020): real numbers that sum to the budget.

    Layer l of L gets a density ∝ (L−l+1)² + (L−l+1); the classifier is the last layer. A layer whose
    density would exceed 1 is full and hands its surplus to the next one.

    Args:
        shapes: each layer's shape by name, in the network's order.
        budget: what the shares sum to.
        vgg: whether the densities are divided by l², as the paper does for VGG.
        classifier: its density.
    """
    sizes = np.array([math.prod(s) for s in shapes.values()], float)
    layer = np.arange(1, len(sizes) + 1)
    from_end = len(sizes) - layer + 1.0
    density = (from_end**2 + from_end) / (layer**2 if vgg else 1)
    last = min(classifier * sizes[-1], float(budget))
    shares = density * sizes
    shares[-1] = 0.0
    if shares.sum() > 0:
        shares *= (budget - last) / shares.sum()
    shares[-1] = last if len(sizes) > 1 else float(budget)
    surplus = 0.0
    for index, size in enumerate(sizes):
        wanted = shares[index] + surplus
        shares[index] = min(wanted, size)
        surplus = wanted - shares[index]
    return shares


def explicit_units(shapes: Mapping[str, Shape], densities: Mapping[str, float]) -> np.ndarray:
    """The units, as real numbers, that each layer keeps at the densities given for each.

    Args:
        shapes: each layer's shape by name.
        densities: each layer's density by name, in [0, 1].

    Raises:
        TombolaError: if a layer is unknown or missing, or a density is out of range.
    """
    for name in densities:
        if name not in shapes:
            raise unknown("layer", name, shapes)
    for name in shapes:
        if name not in densities:
            raise TombolaError(f"no density is given for layer '{name}'; give one for each layer of the network")
        if not 0 <= densities[name] <= 1:
            raise TombolaError(f"the density of layer '{name}' is {densities[name]}; give one between 0 and 1")
    return np.array([densities[name] * math.prod(shape) for name, shape in shapes.items()], float)
