"""How alike the units of two networks are: by what they are connected to, or by what they do on data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tombola.scores import Batch, Forward, suited
from tombola.structure import Orders, Strand, Symmetry, in_mode, is_depthwise, is_producer, is_transposed
from tombola.tickets import modules_of

CONSTANT = 1e-5
"""A unit whose values deviate by a smaller share of the largest deviation in its layer is constant."""
MOST = 4096
"""Of the samples, places and tokens of a batch, about so many are heard at most."""

Likeness = list[Tensor]
"""For each strand of a symmetry, how alike each unit that stays (row) and each that may move (column) are."""


def of_weights(
    symmetry: Symmetry, staying: Mapping[str, Tensor], moving: Mapping[str, Tensor], orders: Orders
) -> Likeness:
    """The inner products of the units' weights, as the other units of both networks are matched now.

    Args:
        symmetry: whose units are compared.
        staying: the parameters of the network that stays.
        moving: the parameters of the other one, all other units where they belong, these where they were.
        orders: where these are now.
    """
    likeness = []
    for strand, order in zip(symmetry.strands, orders, strict=True):
        total = torch.zeros(len(order), len(order), dtype=torch.float64)
        for seat in strand.seats:
            if seat.tensor not in staying:
                continue
            # A tensor that reads these units where it also makes them: all but this seat is where it is now.
            other = symmetry.moved({seat.tensor: moving[seat.tensor]}, orders, without=seat)[seat.tensor]
            columns = seat.slices(other)
            if seat.groups > 1:  # the rows have moved, so that a unit is read in the place of its block
                block = order[:: strand.size] // strand.size
                places = torch.argsort(block)[torch.arange(len(order)) // strand.size] * strand.size
                columns = columns[places + torch.arange(len(order)) % strand.size]
            total += _products(seat.slices(staying[seat.tensor]), columns)
        likeness.append(total)
    return likeness


def _products(rows: Tensor, columns: Tensor) -> Tensor:
    wide = torch.complex128 if rows.is_complex() else torch.float64
    product = rows.cpu().to(wide) @ columns.cpu().to(wide).conj().T
    return product.real if product.is_complex() else product


@dataclass(eq=False)
class _Sums:
    """What Pearson's correlation of the units of two networks is made of."""

    count: int
    first: Tensor
    second: Tensor
    squares: tuple[Tensor, Tensor]
    product: Tensor

    @staticmethod
    def of(units: int) -> _Sums:
        zeros = torch.zeros(units, dtype=torch.float64)
        return _Sums(0, zeros.clone(), zeros.clone(), (zeros.clone(), zeros.clone()), zeros.outer(zeros))

    def add(self, first: Tensor, second: Tensor) -> None:
        self.count += len(first)
        self.first += first.sum(0)
        self.second += second.sum(0)
        self.squares[0].add_(first.square().sum(0))
        self.squares[1].add_(second.square().sum(0))
        self.product += first.T @ second

    def correlation(self) -> tuple[Tensor, Tensor]:
        """Of each two units, 0 where one of them is constant; and whether both are."""
        means = self.first / self.count, self.second / self.count
        one, other = (
            (squares / self.count - mean.square()).clamp_min(0).sqrt()
            for squares, mean in zip(self.squares, means, strict=True)
        )
        covariance = self.product / self.count - means[0].outer(means[1])
        varies = [own > CONSTANT * own.max() for own in (one, other)]
        both = varies[0].outer(varies[1])
        correlation = torch.where(both, covariance / one.outer(other).clamp_min(1e-300), 0.0).clamp(-1, 1)
        return correlation, (~varies[0]).outer(~varies[1])


def of_activations(
    symmetries: Sequence[Symmetry], staying: nn.Module, moving: nn.Module, batches: Iterable[Batch], forward: Forward
) -> dict[str, list[Tensor | None]]:
    """Pearson's correlations of what the units do on data, averaged over the layers that read them.

    What a unit does is read where layers take it, behind activation and norm. Two units that are constant there, as
    behind a ReLU that never opens, are compared by what leaves their own layers.

    Args:
        symmetries: whose units are compared.
        staying: the network that stays.
        moving: the other one.
        batches: of training data.
        forward: calls a network on inputs.

    Returns:
        By the symmetry's name, one matrix a strand; None where no layer shows what its units do.
    """
    modules = modules_of(staying)
    listened = {(own.name, at): _ears(strand, modules) for own in symmetries for at, strand in enumerate(own.strands)}
    ears = {ear for of_strand in listened.values() for ear, _ in of_strand}
    sums: dict[tuple[str, int], dict[_Ear, _Sums]] = {strand: {} for strand in listened}
    for inputs, _ in batches:
        heard = [_heard(network, ears, suited(inputs, network), forward) for network in (staying, moving)]
        for strand, of_strand in listened.items():
            for ear, positions in of_strand:
                if all(ear in values for values in heard):
                    one, other = (values[ear][:, positions].movedim(1, -1).flatten(0, 1) for values in heard)
                    sums[strand].setdefault(ear, _Sums.of(len(positions))).add(one, other)
    means = {strand: _mean(of_ears) for strand, of_ears in sums.items()}
    return {own.name: [means[own.name, at] for at in range(len(own.strands))] for own in symmetries}


def _mean(sums: Mapping[_Ear, _Sums]) -> Tensor | None:
    """The mean correlation where units enter; where both are constant in all these places, where they leave."""
    found = None
    for enters in (False, True):
        correlations = [own.correlation() for ear, own in sums.items() if ear.enters == enters]
        if not correlations:
            continue
        mean = torch.stack([own for own, _ in correlations]).mean(0)
        constant = torch.stack([both for _, both in correlations]).all(0)
        found = mean if found is None else torch.where(constant, found, mean)
    return found


class _Ear(NamedTuple):
    """Where units are heard: a module, whether what enters it or what leaves it, and the axis of the units."""

    module: str
    enters: bool
    axis: int


def _ears(strand: Strand, modules: Mapping[str, nn.Module]) -> list[tuple[_Ear, Tensor]]:
    """Where a strand's units can be heard, each with their positions."""
    ears = []
    for seat in strand.seats:
        name, _, own = seat.tensor.rpartition(".")
        module = modules.get(name)
        if own == "weight" and module is not None:
            axis = -1 if isinstance(module, nn.Linear | nn.LayerNorm) else 1
            reads = seat.groups > 1 or seat.dim == int(not is_transposed(module)) or is_depthwise(module)
            ears.append((_Ear(name, is_producer(module) and reads, axis), seat.positions))
    return ears


def _heard(network: nn.Module, ears: Iterable[_Ear], inputs: Any, forward: Forward) -> dict[_Ear, Tensor]:
    """By where it is heard: (samples and places, channels), of so many samples and places at most."""
    modules, heard, handles = modules_of(network), dict[_Ear, Tensor](), []

    def listen(ear: _Ear) -> None:
        def hear(_: nn.Module, args: Any, outputs: Any = None) -> None:
            value = args[0] if ear.enters and args else outputs
            if isinstance(value, Tensor):
                values = value.detach().movedim(ear.axis, -1).flatten(0, -2)
                heard[ear] = values[:: 1 + len(values) // MOST].cpu().double()

        module = modules[ear.module]
        handles.append(module.register_forward_pre_hook(hear) if ear.enters else module.register_forward_hook(hear))

    try:
        for ear in ears:
            listen(ear)
        with torch.no_grad(), in_mode(network, "eval"):
            forward(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return heard
