"""How a budget of units is shared among layers: one pure function a scope."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from tombola.errors import TombolaError, unknown
from tombola.tickets.mask import Shape

Scope = Literal["global", "layerwise", "erk", "smart-ratio", "smart-ratio-vgg"] | Mapping[str, float]

CLASSIFIER_DENSITY = 0.3


def as_density(given: Any, what: str = "units") -> float:
    """A density as Python's own number, also out of NumPy or a tensor; TombolaError unless above 0 and at most 1."""
    one = given.item() if hasattr(given, "item") and getattr(given, "ndim", None) == 0 else given
    if not (isinstance(one, int | float) and 0 < one <= 1):
        raise TombolaError(f"density is {given}; give the share of {what} to keep, above 0 and at most 1")
    return float(one)


def quotas(shapes: Mapping[str, Shape], budget: int, scope: Scope, room: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """Units that each layer keeps, summing to `budget`, each between its floor and the room it has.

    shapes: each layer's shape, in network order; room and floors: int64, one entry a layer.
    """
    if isinstance(scope, Mapping):
        weight = explicit_units(shapes, scope)
    elif scope == "layerwise":
        weight = np.array([math.prod(shape) for shape in shapes.values()], float)
    elif scope == "erk":
        weight = np.array([sum(shape) for shape in shapes.values()], float)
    elif scope in ("smart-ratio", "smart-ratio-vgg"):
        weight = smart_ratio(shapes, budget, vgg=scope == "smart-ratio-vgg")
    else:
        raise unknown("scope", str(scope), ["global", "layerwise", "erk", "smart-ratio", "smart-ratio-vgg"])
    shares = np.clip(weight, floors, room)
    if abs(shares.sum() - budget) >= 1:
        shares = water_fill(weight, floors, room, budget)
    return largest_remainder(shares, floors, room, budget)


def water_fill(weight: np.ndarray, floors: np.ndarray, room: np.ndarray, budget: int) -> np.ndarray:
    """clip(t · weight, floors, room) for the one t at which the shares sum to the budget.

    A layer that is full (or at its floor) thereby hands its surplus to all others in proportion, which is
    how ERK redistributes what a saturated layer cannot take (Evci et al., ICML 2020). ERK's density, the
    sum of a layer's dimensions over their product, times its size is the sum of its dimensions: its weight.
    """
    floors, room = floors.astype(float), room.astype(float)
    safe = np.where(weight > 0, weight, 1.0)
    knots = np.unique(np.concatenate([[0.0], (floors / safe)[weight > 0], (room / safe)[weight > 0]]))
    totals = np.clip(knots[:, None] * weight, floors, room).sum(axis=1)
    if totals[-1] < budget:
        return floors + (room - floors) * (budget - floors.sum()) / max((room - floors).sum(), 1.0)
    return np.clip(np.interp(budget, totals, knots) * weight, floors, room)


def largest_remainder(shares: np.ndarray, floors: np.ndarray, room: np.ndarray, budget: int) -> np.ndarray:
    """Whole shares that sum to the budget: each rounded down, what is left to the largest remainders."""
    whole = np.clip(np.floor(shares + 1e-9).astype(np.int64), floors, room)
    remainder = shares - whole
    while (missing := budget - int(whole.sum())) != 0:
        open_layers = np.flatnonzero(whole < room) if missing > 0 else np.flatnonzero(whole > floors)
        order = open_layers[np.argsort(-np.sign(missing) * remainder[open_layers], kind="stable")][: abs(missing)]
        whole[order] += np.sign(missing)
        remainder[order] -= np.sign(missing)
    return whole


def smart_ratio(shapes: Mapping[str, Shape], budget: int, *, vgg: bool = False) -> np.ndarray:
    """Smart-ratio shares of random tickets (Su et al., NeurIPS 2020): real numbers that sum to the budget.

    Layer l of L gets density ∝ (L−l+1)² + (L−l+1), for VGG divided by l²; the classifier, the last layer,
    is fixed at 0.3. A layer that would exceed density 1 is clipped and hands its surplus to the next in order.
    """
    sizes = np.array([math.prod(s) for s in shapes.values()], float)
    layer = np.arange(1, len(sizes) + 1)
    rung = len(sizes) - layer + 1.0
    density = (rung**2 + rung) / (layer**2 if vgg else 1)
    classifier = min(CLASSIFIER_DENSITY * sizes[-1], float(budget))
    shares = density * sizes
    shares[-1] = 0.0
    if shares.sum() > 0:
        shares *= (budget - classifier) / shares.sum()
    shares[-1] = classifier if len(sizes) > 1 else float(budget)
    surplus = 0.0
    for index, size in enumerate(sizes):
        wanted = shares[index] + surplus
        shares[index] = min(wanted, size)
        surplus = wanted - shares[index]
    return shares


def explicit_units(shapes: Mapping[str, Shape], densities: Mapping[str, float]) -> np.ndarray:
    """The units (real numbers) that densities given by layer name keep in each layer."""
    for name in densities:
        if name not in shapes:
            raise unknown("layer", name, shapes)
    for name in shapes:
        if name not in densities:
            raise TombolaError(f"no density is given for layer '{name}'; give one for each layer of the network")
        if not 0 <= densities[name] <= 1:
            raise TombolaError(f"the density of layer '{name}' is {densities[name]}; give one between 0 and 1")
    return np.array([densities[name] * math.prod(shape) for name, shape in shapes.items()], float)
