"""How many heads an attention may have, of which size, and where they lie in the layers that make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tombola.structure.head_names import HEADS, SIZES
from tombola.structure.mixing_layers import MixingLayer, sizes_of
from tombola.structure.placed_parts import Place


@dataclass(frozen=True)
class Heads:
    """The numbers of an attention.

    Args:
        heads: how many heads there are.
        size: of one, in the layer that mixes them.
        groups: how many keys there are, each of which serves as many queries.
    """

    heads: int
    size: int
    groups: int

    @property
    def units(self) -> int:
        """How many units can go alone: groups, or the queries of the only group."""
        return self.groups if self.groups > 1 else self.heads

    @property
    def queries(self) -> int:
        """How many heads go with a unit."""
        return self.heads // self.units

    def rows(self, layer: MixingLayer, major: bool, value: bool) -> list[Place] | None:
        """Where the units lie in what a layer makes; None if they cannot.

        Args:
            layer: the layer.
            major: whether what belongs to a unit lies side by side, and not all queries first.
            value: whether the layer makes values alone.
        """
        total, size, groups = self.heads * self.size, self.size, self.groups
        outs, role = layer.outs, "value" if value else "makes"
        if outs == total:
            return layer.rows(inner=self.queries * size, role=role)
        if groups == 1 < self.heads:
            if outs in (size, 2 * size):
                return []  # all queries share them
            return layer.rows(inner=size) if outs == total + 2 * size else None
        if groups < self.heads:
            if outs == total + 2 * groups * size and not major:
                sections = [(0, self.queries * size), (total, size), (total + groups * size, size)]
                return [own for start, inner in sections for own in layer.rows(inner=inner, start=start)]
            if outs == 2 * groups * size and not major:
                return layer.rows(inner=size, outer=2)
            return layer.rows(inner=outs // groups, role=role) if outs % groups == 0 else None
        if outs % total == 0 and not major:
            first = layer.rows(inner=size, outer=outs // total - 1)
            return first + layer.rows(inner=size, start=outs - total, role="value")
        return layer.rows(inner=outs // self.heads, role=role) if outs % self.heads == 0 else None


def head_numbers(module: nn.Module, makers: Sequence[MixingLayer], taker: MixingLayer, known: bool) -> list[Heads]:
    """How many heads there may be and of which size, from attributes and the layers' sizes; first without groups."""
    own = [module, *(part for part in module.modules() if sizes_of(part) is None)]
    sizes = [size for part in own if (size := attribute(part, SIZES)) and not taker.ins % size]
    counts = [count for part in own if (count := attribute(part, HEADS)) and not taker.ins % count]
    sizes += [taker.ins // count for count in counts]
    if not sizes:
        return []
    size, outs = sizes[0], [layer.outs for layer in makers]
    heads = taker.ins // size
    groups = [heads]
    if known and len(makers) == 3 and outs[0] == taker.ins and outs[1] == outs[2] != taker.ins:
        groups = [outs[1] // size]
    elif known and len(makers) == 2 and outs[0] == taker.ins and outs[1] != 2 * taker.ins:
        groups = [outs[1] // (2 * size)]
    elif len(makers) == 1 and taker.ins < outs[0] < 3 * taker.ins and (outs[0] - taker.ins) % (2 * size) == 0:
        groups.append((outs[0] - taker.ins) // (2 * size))
    if counts and counts[0] != heads:
        return []
    found = [Heads(heads, size, own) for own in groups if own and heads % own == 0]
    return [own for own in found if own.units > 1]


def attribute(module: nn.Module, names: Sequence[str]) -> int | None:
    """The first of these attributes that is a positive number."""
    values = (vars(module).get(own) for own in names)
    return next((value for value in values if type(value) is int and value > 0), None)
