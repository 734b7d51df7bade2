"""Symmetries: which units of a network can change places while it computes the same, and what moves with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tombola.errors import TombolaError

Orders = tuple[Tensor, ...]
"""Of one symmetry: for each of its strands, which unit comes to each place."""


@dataclass(frozen=True, eq=False)
class Seat:
    """Where the units of a strand sit along one dimension of a tensor.

    Args:
        tensor: the name of the parameter or buffer.
        dim: the dimension.
        positions: (units, n), the indices of each unit along it.
        groups: of a grouped convolution, whose second dimension counts the inputs of one group; 1 for all else.
    """

    tensor: str
    dim: int
    positions: Tensor
    groups: int = 1

    def moved(self, tensor: Tensor, order: Tensor) -> Tensor:
        """The tensor after each place has taken the unit that the order gives it."""
        if self.groups > 1:
            return self._moved_within(tensor, order)
        index = torch.arange(tensor.shape[self.dim])
        index[self.positions.flatten()] = self.positions[order].flatten()
        return tensor.index_select(self.dim, index.to(tensor.device))

    def _moved_within(self, tensor: Tensor, order: Tensor) -> Tensor:
        """As `moved`, where the rows have already moved to the places of their groups."""
        size = tensor.shape[1]
        places, taken = self.positions[:, 0], self.positions[order][:, 0]
        index = torch.arange(size).expand(self.groups, size).clone()
        index[places // size, places % size] = taken % size
        index = index.repeat_interleave(len(tensor) // self.groups, 0).to(tensor.device)
        return tensor.gather(1, index.reshape(*index.shape, *[1] * (tensor.ndim - 2)).expand_as(tensor))

    def slices(self, tensor: Tensor) -> Tensor:
        """(units, elements): what each unit has of a tensor; of a grouped convolution, from the rows of its group."""
        if self.groups > 1:
            size = tensor.shape[1]
            by_group = tensor.reshape(self.groups, -1, *tensor.shape[1:]).movedim(2, 1)
            return by_group[self.positions[:, 0] // size, self.positions[:, 0] % size].flatten(1)
        return tensor.movedim(self.dim, 0)[self.positions.to(tensor.device)].flatten(1)


@dataclass(frozen=True, eq=False)
class Strand:
    """Units that may change places, with all that moves with each; those of a block stay together.

    Args:
        seats: where they sit; the blocks follow each other, each with as many units.
        size: units a block.
    """

    seats: tuple[Seat, ...]
    size: int = 1


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Blocks of units that may change places, and in each block units that may do so among themselves.

    Most layers have blocks of one unit: a channel with its bias, its norm and the weights that read it. A group of a
    grouped convolution or of a group norm, and an attention head, are blocks of several.

    Args:
        name: of the first layer.
        blocks: how many there are.
        strands: the kinds of units in a block, as the inputs and the outputs of a group.
    """

    name: str
    blocks: int
    strands: tuple[Strand, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of all tensors of which units have a part."""
        return tuple(dict.fromkeys(seat.tensor for strand in self.strands for seat in strand.seats))

    @property
    def identity(self) -> Orders:
        """The orders that leave all units where they are."""
        return tuple(torch.arange(self.blocks * strand.size) for strand in self.strands)

    @property
    def units(self) -> int:
        """How many units can change places, those of all strands."""
        return sum(self.blocks * strand.size for strand in self.strands)

    def random(self, generator: torch.Generator) -> Orders:
        """Orders drawn at random."""
        blocks = torch.randperm(self.blocks, generator=generator)
        inner = [
            [torch.randperm(strand.size, generator=generator) for _ in range(self.blocks)] for strand in self.strands
        ]
        return self.joined(blocks, inner)

    def joined(self, blocks: Tensor, inner: Sequence[Sequence[Tensor]]) -> Orders:
        """Orders from one of the blocks and, for each strand and place of a block, one of the units in it."""
        return tuple(
            torch.cat([block * strand.size + own for block, own in zip(blocks, orders, strict=True)])
            for strand, orders in zip(self.strands, inner, strict=True)
        )

    def moved(self, tensors: Mapping[str, Tensor], orders: Orders, without: Seat | None = None) -> dict[str, Tensor]:
        """The tensors that have a part of the units, with the units in another order.

        Args:
            tensors: by name; those that are missing are left out.
            orders: of each strand.
            without: a seat whose units stay.
        """
        done = {name: tensors[name] for name in self.tensors if name in tensors}
        seats = [(seat, order) for strand, order in zip(self.strands, orders, strict=True) for seat in strand.seats]
        for seat, order in sorted(seats, key=lambda own: own[0].groups > 1):  # within groups only after their rows
            if seat.tensor in done and seat is not without:
                done[seat.tensor] = seat.moved(done[seat.tensor], order)
        return done

    @property
    def coarser(self) -> Symmetry:
        """The symmetry in which only whole blocks change places."""
        seats: dict[tuple[str, int], list[Tensor]] = {}
        for strand in self.strands:
            for seat in strand.seats:
                if seat.groups == 1:
                    seats.setdefault((seat.tensor, seat.dim), []).append(seat.positions.reshape(self.blocks, -1))
        whole = tuple(Seat(*key, torch.cat(positions, 1)) for key, positions in seats.items())
        return replace(self, strands=(Strand(whole),))


@dataclass(frozen=True, eq=False)
class Symmetries:
    """All units of a network that can change places.

    Args:
        found: the symmetries.
        fixed: layers whose outputs all stay in place though they are not the network's outputs, and why.
    """

    found: tuple[Symmetry, ...]
    fixed: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, Orders]:
        """The orders that leave all units where they are."""
        return {own.name: own.identity for own in self.found}

    def random(self, seed: int) -> dict[str, Orders]:
        """Orders drawn at random, by the symmetry's name."""
        generator = torch.Generator().manual_seed(seed)
        return {own.name: own.random(generator) for own in self.found}

    def moved(self, tensors: Mapping[str, Tensor], orders: Mapping[str, Orders]) -> dict[str, Tensor]:
        """All these tensors, with the units in another order.

        Args:
            tensors: parameters, buffers or masks, by name.
            orders: by the symmetry's name.

        Raises:
            TombolaError: if there are orders of another network's symmetries.
        """
        if unknown := orders.keys() - {own.name for own in self.found}:
            raise TombolaError(f"these orders are another network's: there are no units of '{min(unknown)}' to move")
        done = dict(tensors)
        for own in self.found:
            if own.name in orders:
                done |= own.moved(done, orders[own.name])
        return done
