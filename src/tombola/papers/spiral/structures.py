"""The structures among which the sparsest network is searched: their order, their number, and the study's choice."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, islice, product
from math import comb, prod

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.tickets import Mask

Widths = tuple[int, int, int]
Support = tuple[int, ...]
"""The weights that a matrix has: a number for each row. Its binary digits are the columns, the first the highest."""

Limits = tuple[int | None, int | None, int | None]
"""How many supports of each layer to list for each number of weights; None for all."""

INPUTS, LISTED = 2, 1000
"""How many inputs the network has, and how many supports a layer may have to be listed rather than drawn."""

LAYERS = ("1", "3", "5", "7")
"""The linear layers' names in `zoo.spiral_block`."""


@dataclass(frozen=True)
class Structure:
    """A network 2-d1-d2-d3-1, of which the first three layers may lack weights.

    Args:
        widths: of the three hidden layers.
        supports: the weights that the first three layers have; None for all of them.

    Raises:
        TombolaError: for supports that do not fit the widths.

    Examples:
        >>> structure = Structure((3, 2, 2))
        >>> structure.weights, structure.size, structure.name
        (18, 26, '3,2,2')
    """

    widths: Widths
    supports: tuple[Support, Support, Support] | None = None

    def __post_init__(self) -> None:
        for rows, columns, support in zip(self.widths, (INPUTS, *self.widths), self.supports or (), strict=False):
            if len(support) != rows or not all(0 <= row < 2**columns for row in support):
                raise TombolaError(f"{support} is no support of {rows}×{columns} weights; give a number for each row")

    @property
    def weights(self) -> int:
        first, second, third = self.widths
        if self.supports is None:
            return INPUTS * first + first * second + second * third + third
        return sum(row.bit_count() for support in self.supports for row in support) + third

    @property
    def size(self) -> int:
        """Weights and biases."""
        return self.weights + sum(self.widths) + 1

    @property
    def name(self) -> str:
        """As "3,2,2", or "3,2,2:3.2.1/7.4/3.1" with the rows of each layer."""
        widths = ",".join(map(str, self.widths))
        if self.supports is None:
            return widths
        return f"{widths}:{'/'.join('.'.join(map(str, support)) for support in self.supports)}"

    @staticmethod
    def parse(name: str) -> Structure:
        """The structure of this name.

        Raises:
            TombolaError: if no structure has it.

        Examples:
            >>> Structure.parse("3,2,2").size, Structure.parse("3,2,2:3.2.1/7.4/3.1").weights
            (26, 13)
        """
        widths, _, rows = name.partition(":")
        try:
            first, second, third = (int(width) for width in widths.split(","))
            supports = tuple(tuple(int(row) for row in layer.split(".")) for layer in rows.split("/")) if rows else None
            if supports is None:
                return Structure((first, second, third))
            one, two, three = supports
            return Structure((first, second, third), (one, two, three))
        except ValueError as error:
            raise TombolaError(f"'{name}' is no structure; give three widths, as 3,2,2") from error

    def mask(self, inside: Widths) -> Mask:
        """Its weights and biases as a mask of a larger network, where they take the top-left corner of each layer.

        Args:
            inside: the larger network's widths, none smaller than the structure's.
        """
        sizes, counts = (INPUTS, *inside, 1), (INPUTS, *self.widths, 1)
        kept: dict[str, Tensor] = {}
        for index, layer in enumerate(LAYERS):
            weight = torch.zeros(sizes[index + 1], sizes[index], dtype=torch.bool)
            block = weight[: counts[index + 1], : counts[index]]
            if self.supports is None or index == len(self.supports):
                block[:] = True
            else:
                block[:] = _matrix(self.supports[index], counts[index])
            kept[f"{layer}.weight"] = weight
            kept[f"{layer}.bias"] = torch.arange(sizes[index + 1]) < counts[index + 1]
        return Mask.of(kept)


def structured(width: int = 16, below: int | None = None) -> list[Structure]:
    """List the dense structures of every triple of widths, the smallest first.

    Args:
        width: the largest width.
        below: list only structures with fewer weights and biases than this.

    Examples:
        >>> len(structured()), len(structured(below=37))
        (4096, 93)
    """
    sizes = range(1, width + 1)
    dense = (Structure((one, two, three)) for one, two, three in product(sizes, sizes, sizes))
    chosen = (structure for structure in dense if below is None or structure.size < below)
    return sorted(chosen, key=lambda structure: (structure.size, structure.widths))


def supports(rows: int, columns: int, kept: int) -> Iterator[Support]:
    """List the supports of a matrix that have no empty row or column, up to the order of their rows.

    Rows stand in order of their number of ones, then of their binary value, both descending.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        kept: how many ones each support has.

    Examples:
        >>> list(supports(2, 2, 3))
        [(3, 2), (3, 1)]
    """
    patterns = sorted(range(1, 2**columns), key=lambda row: (-row.bit_count(), -row))

    def chosen(rows: int, kept: int, begin: int, empty: int) -> Iterator[Support]:
        if not rows:
            yield from () if empty else ((),)
            return
        for index in range(begin, len(patterns)):
            row, count = patterns[index], patterns[index].bit_count()
            # Later patterns have no more ones than this one, so they cannot make up the count either.
            if count * rows < kept:
                return
            # Every other row needs at least a one.
            if count <= kept - rows + 1:
                yield from ((row, *others) for others in chosen(rows - 1, kept - count, index, empty & ~row))

    return chosen(rows, kept, 0, 2**columns - 1)


def refined(widths: Widths, limits: Limits = (None, None, None), below: int | None = None) -> Iterator[Structure]:
    """List every combination of supports of the three layers inside a triple of widths, the fewest weights first.

    The order of rows can be left open: to permute a layer's rows is to permute the next layer's columns, and of these
    all supports are listed.

    Args:
        widths: of the three hidden layers.
        limits: how many supports of each layer to list for each number of weights; None for all.
        below: list only structures with fewer weights than this in the three layers together.
    """
    listed = [_listed(*shape, limit) for shape, limit in zip(_shapes(widths), limits, strict=True)]
    for counts in sorted(product(*listed), key=lambda counts: (sum(counts), counts)):
        if below is None or sum(counts) < below:
            for one, two, three in product(*(layer[count] for layer, count in zip(listed, counts, strict=True))):
                yield Structure(widths, (one, two, three))


def downwards(widths: Widths, level: int = 5000, seed: int = 0) -> Iterator[Structure]:
    """Structures inside a triple of widths, the most weights first, those of one number of weights in random order.

    If no layer has more than `LISTED` supports, all structures of a number of weights come, or `level` of them, each as
    likely as any other. Otherwise random ones are drawn, equally many of each number of weights.

    Args:
        widths: of the three hidden layers.
        level: the most structures of one number of weights; where structures are drawn, of all numbers together.
        seed: of the random order.
    """
    shapes = _shapes(widths)
    most, least = sum(rows * columns for rows, columns in shapes), sum(max(shape) for shape in shapes)
    few = all(how_many(*shape) <= LISTED for shape in shapes)
    generator = random.Random(seed)
    for count in range(most, least - 1, -1):
        if few:
            yield from _sampled(widths, count, level, generator)
        else:
            drawn = [_scattered(widths, count, generator) for _ in range(max(1, level // (most - least + 1)))]
            yield from dict.fromkeys(structure for structure in drawn if structure is not None)


def _sampled(widths: Widths, count: int, level: int, generator: random.Random) -> Iterator[Structure]:
    """Structures of so many weights in the first three layers, in random order: all, or `level` drawn uniformly."""
    listed = [_listed(*shape, None) for shape in _shapes(widths)]
    groups = [
        tuple(layer[ones] for layer, ones in zip(listed, counts, strict=True))
        for counts in product(*listed)
        if sum(counts) == count
    ]
    # Structures are numbered through all groups and drawn by number: they are too many to list.
    ends = list(accumulate(prod(map(len, group)) for group in groups))
    for place in generator.sample(range(ends[-1]), min(level, ends[-1])):
        index = bisect_right(ends, place)
        layer1, layer2, layer3 = groups[index]
        rest, third = divmod(place - (ends[index - 1] if index else 0), len(layer3))
        first, second = divmod(rest, len(layer2))
        yield Structure(widths, (layer1[first], layer2[second], layer3[third]))


def _scattered(widths: Widths, count: int, generator: random.Random) -> Structure | None:
    """Remove random weights from a dense structure, never the last of a row or column; None if too few can go."""
    shapes = _shapes(widths)
    places = [(layer, i, j) for layer, shape in enumerate(shapes) for i, j in product(*map(range, shape))]
    kept = [[2**columns - 1] * rows for rows, columns in shapes]
    in_column = [[rows] * columns for rows, columns in shapes]
    surplus = len(places) - count
    for layer, row, column in generator.sample(places, len(places)):
        if not surplus:
            break
        if kept[layer][row].bit_count() > 1 and in_column[layer][column] > 1:
            kept[layer][row] ^= 1 << column
            in_column[layer][column] -= 1
            surplus -= 1
    one, two, three = (tuple(rows) for rows in kept)
    return None if surplus else Structure(widths, (one, two, three))


def how_many(rows: int, columns: int) -> int:
    """The number of supports of a matrix, of all numbers of ones, by inclusion and exclusion over empty columns.

    Args:
        rows: of the matrix.
        columns: of the matrix.

    Examples:
        >>> [how_many(*shape) for shape in ((3, 2), (3, 3), (7, 2), (2, 3))]
        [8, 57, 34, 13]
    """
    return sum((-1) ** k * comb(columns, k) * comb(2 ** (columns - k) - 2 + rows, rows) for k in range(columns))


def _shapes(widths: Widths) -> list[tuple[int, int]]:
    return list(zip(widths, (INPUTS, *widths), strict=False))


@cache
def _listed(rows: int, columns: int, limit: int | None) -> Mapping[int, Sequence[Support]]:
    counts = range(max(rows, columns), rows * columns + 1)
    return {count: tuple(islice(supports(rows, columns, count), limit)) for count in counts}


@dataclass(frozen=True)
class PrunedStructure:
    """A grid of pruned networks of several widths.

    Args:
        widths: of the three hidden layers, which are equally wide.
        requests: the numbers of weights to keep.
        repeats: of each ticket.
    """

    widths: tuple[int, ...]
    requests: tuple[int, ...]
    repeats: int = 1

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Each width with each number of weights that is below the network's own."""
        return [(w, n) for w, n in product(self.widths, self.requests) if n < Structure((w, w, w)).weights]

    def runs(self, methods: int = 9, settings: int = 9) -> int:
        """The number of runs of the grid for so many methods and settings of the training."""
        return len(self.cells) * self.repeats * methods * settings


@dataclass(frozen=True)
class WholeStructure:
    """One of the study's four searches (Zhang & Papyan, ICML 2024).

    Args:
        accuracy: to reach.
        widths: what the first phase came to, and the second searches in.
        pruned: the grid of pruned networks beside it.
        lrs: learning rates of the second phase; the first has 0.05 and 0.1, the pruning methods have three.
        structured_below: the first phase tries structures of fewer weights and biases than this; None for all.
        limits: how many supports of each layer the second phase lists for each number of weights.
        below: the second phase tries structures with fewer weights than this in the first three layers; None for all.
        fixed: whether all runs start from one initialisation.
    """

    accuracy: float
    widths: Widths
    pruned: PrunedStructure
    lrs: tuple[float, ...] = (0.05, 0.1)
    structured_below: int | None = None
    limits: Limits = (None, None, None)
    below: int | None = None
    fixed: bool = False

    @property
    def structured(self) -> list[Structure]:
        return structured(below=self.structured_below)

    @property
    def refined(self) -> Iterator[Structure]:
        return refined(self.widths, self.limits, self.below)


LARGE = PrunedStructure(
    (3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256), (*range(15, 27), 30, 33, 37, 40, 44, 50, 53, 55, 57, 60, 65)
)
"""The grid of over-parameterised networks that both searches from random initialisations share."""

WHOLE: Mapping[str, WholeStructure] = {
    "random-95": WholeStructure(0.95, (3, 3, 3), LARGE),
    "random-99.5": WholeStructure(0.995, (7, 3, 3), LARGE, (0.05,), limits=(None, 3, None), below=33),
    "fixed-95": WholeStructure(
        0.95, (3, 2, 2), PrunedStructure((3, 16), tuple(range(15, 27)), 5), structured_below=37, fixed=True
    ),
    "fixed-99.5": WholeStructure(
        0.995,
        (6, 3, 2),
        PrunedStructure((6, 16), (16, 18, 20, 22, *range(24, 31), 32, 34, 36), 5),
        (0.05,),
        structured_below=61,
        limits=(None, 6, None),
        below=31,
        fixed=True,
    ),
}
"""The study's four searches by name."""


def _matrix(support: Support, columns: int) -> Tensor:
    """A support as a bool matrix."""
    rows = torch.tensor(support)[:, None]
    return (rows >> torch.arange(columns - 1, -1, -1) & 1).bool()
