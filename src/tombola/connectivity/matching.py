"""Matches the units of two networks of one architecture: which unit of one does what a unit of the other does."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tombola.connectivity.calm_data import first_samples
from tombola.connectivity.likeness import Likeness, of_activations, of_weights
from tombola.errors import TombolaError
from tombola.scores import Batch
from tombola.structure import Orders, Symmetries, Symmetry, symmetries_of
from tombola.tickets import Mask, parameters_of, put_values, tensors_of
from tombola.training import Run, Task

By = Literal["activations", "weights"]
MOST_SWEEPS = 50
GAIN = 1e-9
"""A sweep over all symmetries is the last one if it betters the sum of products by a smaller share."""
STAYS = 1e-9
"""So much more alike is a unit to the one in its own place: units that are all alike stay where they are."""


@dataclass(frozen=True, eq=False)
class Matching:
    """Where the units of one network belong in another one.

    Args:
        symmetries: which units of this architecture can change places.
        orders: by the symmetry's name, for each of its strands which unit comes to each place.
        by: what was compared.
        likeness: by the symmetry's name, the mean correlation of matched units; by weights, the cosine of all that
            they are connected to.
        before: as `likeness`, of the units as they stood.
        unheard: symmetries whose units no layer shows, matched by their weights though activations were asked for.
    """

    symmetries: Symmetries
    orders: Mapping[str, Orders]
    by: By
    likeness: Mapping[str, float]
    before: Mapping[str, float]
    unheard: tuple[str, ...] = ()

    def tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """These tensors of the network, with each unit in the place of the one that it matches."""
        return self.symmetries.moved(tensors, self.orders)

    def network(self, model: nn.Module) -> nn.Module:
        """A copy of a network in which the units have moved; it computes the same."""
        moved = copy.deepcopy(model)
        put_values(moved, self.tensors(tensors_of(moved)))
        return moved

    def mask(self, mask: Mask) -> Mask:
        """A mask that keeps of each moved unit what the mask keeps of the unit; each layer keeps as many weights."""
        return Mask.of(self.tensors({name: mask[name] for name in mask}), mask.ties)

    @property
    def moved(self) -> float:
        """The share of the units that can move that did."""
        pairs = [
            (order, identity)
            for own in self.symmetries.found
            for order, identity in zip(self.orders[own.name], own.identity, strict=True)
        ]
        return sum(int((one != other).sum()) for one, other in pairs) / sum(len(one) for one, _ in pairs)


def match(task: Task, moving: nn.Module, staying: nn.Module, *, by: By = "activations") -> Matching:
    """Match the units of one network with those of another one of its architecture.

    By activations: units whose values on up to 2,000 training samples correlate most (Li et al., 2015), by the
    Hungarian method, as in Adnan et al. (ICML 2025). By weights: the units are moved to where the sum of the products
    of both networks' parameters is largest, layer after layer until nothing moves (Ainsworth et al., ICLR 2023). Units
    that share an axis, as those of a residual stream, move together.

    Args:
        task: gives training data and the forward pass.
        moving: whose units get other places; it stays as it is.
        staying: the network whose places they take.
        by: what is compared.

    Returns:
        Where each unit belongs; `Matching.network(moving)` is the network with its units there.

    Raises:
        TombolaError: if the networks differ in their layers, or no unit can change places.

    Examples:
        >>> from tombola.testing import toy_task
        >>> task = toy_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 5)))
        >>> match(task, task.build(0), task.build(0)).moved
        0.0
    """
    if by not in ("activations", "weights"):
        raise TombolaError(f"by is {by!r}; give 'activations' or 'weights'")
    check_alike(moving, staying)
    symmetries = symmetries_of(staying, Run(0, device=next(staying.parameters()).device).probe(task))
    parts = [{n: p.detach() for n, p in parameters_of(m).items()} for m in (staying, moving)]
    if by == "weights":
        orders = _by_weights(symmetries.found, parts[0], parts[1])
        likeness, before = (_cosines(symmetries, parts[0], parts[1], own) for own in (orders, symmetries.identity))
        return Matching(symmetries, orders, by, likeness, before)
    return _by_activations(task, symmetries, moving, staying, parts, first_samples(task))


def check_alike(first: nn.Module, second: nn.Module) -> None:
    """Raise TombolaError unless two networks have the same tensors of the same shapes."""
    one, other = ({n: tuple(t.shape) for n, t in tensors_of(m).items()} for m in (first, second))
    if one != other:
        name = next(name for name in [*one, *other] if one.get(name) != other.get(name))
        raise TombolaError(
            f"these networks have different layers: '{name}' is {one.get(name, 'missing')} in one and "
            f"{other.get(name, 'missing')} in the other; give two networks of one architecture"
        )


def _by_activations(
    task: Task,
    symmetries: Symmetries,
    moving: nn.Module,
    staying: nn.Module,
    parts: Sequence[dict[str, Tensor]],
    batches: Sequence[Batch],
) -> Matching:
    correlations = of_activations(symmetries.found, staying, moving, batches, task.forward)
    silent = [own for own in symmetries.found if any(one is None for one in correlations[own.name])]
    heard = {name: [one for one in found if one is not None] for name, found in correlations.items()}
    orders = {own.name: _assigned(own, heard[own.name]) for own in symmetries.found if own not in silent}
    orders |= _by_weights(silent, parts[0], parts[1], orders, symmetries) if silent else {}
    means = [
        {own.name: _mean_at(heard[own.name], at[own.name]) for own in symmetries.found if own not in silent}
        for at in (orders, symmetries.identity)
    ]
    return Matching(symmetries, orders, "activations", *means, tuple(own.name for own in silent))


def _by_weights(
    free: Sequence[Symmetry],
    staying: Mapping[str, Tensor],
    moving: Mapping[str, Tensor],
    held: Mapping[str, Orders] = {},
    every: Symmetries | None = None,
) -> dict[str, Orders]:
    """The orders at which no symmetry alone can better the sum of the products of the parameters."""
    rest = every or Symmetries(tuple(free))
    orders = {own.name: own.identity for own in free}
    total = float("-inf")
    for _ in range(MOST_SWEEPS):
        for own in free:
            others = {name: order for name, order in {**held, **orders}.items() if name != own.name}
            placed = rest.moved({name: moving[name] for name in own.tensors if name in moving}, others)
            found = _assigned(own, of_weights(own, staying, placed, orders[own.name]))
            now, then = (_product(own, staying, placed, order) for order in (orders[own.name], found))
            if then > now:
                orders[own.name] = found
        reached = _sum_of_products(staying, rest.moved(moving, {**held, **orders}))
        if reached <= total + GAIN * abs(total):
            break
        total = reached
    return orders


def _product(own: Symmetry, staying: Mapping[str, Tensor], placed: Mapping[str, Tensor], orders: Orders) -> float:
    return _sum_of_products(staying, own.moved(placed, orders))


def _sum_of_products(staying: Mapping[str, Tensor], moved: Mapping[str, Tensor]) -> float:
    return sum(float((staying[n].conj() * t).sum(dtype=_wide(t)).real) for n, t in moved.items() if n in staying)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _cosines(
    symmetries: Symmetries, staying: Mapping[str, Tensor], moving: Mapping[str, Tensor], orders: Mapping[str, Orders]
) -> dict[str, float]:
    """Of all parameters in which the units of a symmetry have a part."""
    moved, cosines = symmetries.moved(moving, orders), {}
    for own in symmetries.found:
        one, other = ({name: part[name] for name in own.tensors if name in moved} for part in (staying, moved))
        sizes = _sum_of_products(one, one) * _sum_of_products(other, other)
        cosines[own.name] = _sum_of_products(one, other) / max(sizes, 1e-30) ** 0.5
    return cosines


def _assigned(symmetry: Symmetry, likeness: Likeness) -> Orders:
    """The orders of the largest total likeness: each block goes where its units, best arranged, are most alike."""
    likeness = [own + STAYS * max(float(own.abs().max()), 1e-30) * torch.eye(len(own)).to(own) for own in likeness]
    sizes = [strand.size for strand in symmetry.strands]
    if sizes == [1]:
        return (_best(likeness[0])[0],)
    inner: dict[tuple[int, int], list[Tensor]] = {}
    worth = torch.zeros(symmetry.blocks, symmetry.blocks, dtype=torch.float64)
    for place in range(symmetry.blocks):
        for block in range(symmetry.blocks):
            for own, size in zip(likeness, sizes, strict=True):
                square = own[place * size : (place + 1) * size, block * size : (block + 1) * size]
                order, value = _best(square)
                inner.setdefault((place, block), []).append(order)
                worth[place, block] += value
    blocks, _ = _best(worth)
    chosen = [[inner[place, int(block)][at] for place, block in enumerate(blocks)] for at in range(len(sizes))]
    return symmetry.joined(blocks, chosen)


def _best(likeness: Tensor) -> tuple[Tensor, float]:
    """For each place the unit that comes to it, so that the total likeness is largest; and that total."""
    # Imported here, since nearly all commands import this file, and do without it.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(likeness.numpy(), maximize=True)
    return torch.from_numpy(columns).long(), float(likeness[rows, columns].sum())


def _mean_at(likeness: Likeness, orders: Orders) -> float:
    matched = [own[torch.arange(len(order)), order] for own, order in zip(likeness, orders, strict=True)]
    return float(torch.cat(matched).mean())
