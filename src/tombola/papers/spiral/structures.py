"""The structures among which the sparsest network is sought, in the order of what they cost, and how many there are."""

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
"""Which weights of a matrix there are: a number a row, whose binary digits are the columns, the first the highest."""

Limits = tuple[int | None, int | None, int | None]

INPUTS, LISTED = 2, 1000
LAYERS = ("1", "3", "5", "7")
"""The linear layers' names in `zoo.spiral_block`."""


@dataclass(frozen=True)
class Structure:
    """A network 2-d1-d2-d3-1: its widths, and which weights of its first three layers there are (None: all of them).

    The last layer and the biases are whole. Raises TombolaError for supports that do not fit the widths.
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
        """The structure of this name; TombolaError if it is none.

        Examples:
            >>> Structure.parse("3,2,2").size, Structure.parse("3,2,2:3.2.1/7.4/3.1").weights
            (26, 13)
        """
        widths, _, rows = name.partition(":")
        try:
            first, second, third = (int(width) for width in widths.split(","))
            supports = tuple(tuple(int(row) for row in own.split(".")) for own in rows.split("/")) if rows else None
            if supports is None:
                return Structure((first, second, third))
            one, two, three = supports
            return Structure((first, second, third), (one, two, three))
        except ValueError as error:
            raise TombolaError(f"'{name}' is no structure; give three widths, as 3,2,2") from error

    def mask(self, inside: Widths) -> Mask:
        """Its weights and biases as the top-left blocks of a network of widths that are no smaller."""
        sizes, own = (INPUTS, *inside, 1), (INPUTS, *self.widths, 1)
        kept: dict[str, Tensor] = {}
        for index, layer in enumerate(LAYERS):
            weight = torch.zeros(sizes[index + 1], sizes[index], dtype=torch.bool)
            block = weight[: own[index + 1], : own[index]]
            if self.supports is None or index == len(self.supports):
                block[:] = True
            else:
                block[:] = _matrix(self.supports[index], own[index])
            kept[f"{layer}.weight"] = weight
            kept[f"{layer}.bias"] = torch.arange(sizes[index + 1]) < own[index + 1]
        return Mask.of(kept)


def structured(width: int = 16, below: int | None = None) -> list[Structure]:
    """Every triple of widths up to this one, dense, the smallest first; below: only those of fewer weights and biases.

    Examples:
        >>> len(structured()), len(structured(below=37))
        (4096, 93)
    """
    sizes = range(1, width + 1)
    whole = [Structure((one, two, three)) for one, two, three in product(sizes, sizes, sizes)]
    return sorted((own for own in whole if below is None or own.size < below), key=lambda own: (own.size, own.widths))


def supports(rows: int, columns: int, kept: int) -> Iterator[Support]:
    """Binary matrices with so many ones and no empty row or column, one of each class of row permutations.

    Rows come by how many ones they have, then by their binary value, both descending.

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
            if count * rows < kept:
                return
            if count <= kept - rows + 1:
                yield from ((row, *others) for others in chosen(rows - 1, kept - count, index, empty & ~row))

    return chosen(rows, kept, 0, 2**columns - 1)


def refined(widths: Widths, limits: Limits = (None, None, None), below: int | None = None) -> Iterator[Structure]:
    """Every combination of supports of the three layers inside a triple of widths, the fewest weights first.

    Nothing is lost by taking rows modulo their order, layer by layer from the input: to permute them permutes the next
    layer's columns, of which all supports are listed. limits: only the first so many supports of a layer for each of
    its counts; below: only those with fewer weights in the three layers together.
    """
    listed = [_listed(*shape, limit) for shape, limit in zip(_shapes(widths), limits, strict=True)]
    for counts in sorted(product(*listed), key=lambda own: (sum(own), own)):
        if below is None or sum(counts) < below:
            for one, two, three in product(*(layer[count] for layer, count in zip(listed, counts, strict=True))):
                yield Structure(widths, (one, two, three))


def downwards(widths: Widths, level: int = 5000, seed: int = 0) -> Iterator[Structure]:
    """Supports inside a triple of widths, the most weights first, those of one count in random order.

    Where a layer has more than `LISTED` supports some are drawn at random, as many of each count, `level` in all; else
    there are all of them, or of one count `level`, each as likely as any other.
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
            yield from dict.fromkeys(own for own in drawn if own is not None)


def _sampled(widths: Widths, count: int, level: int, generator: random.Random) -> Iterator[Structure]:
    """Structures of so many weights in the first three layers, in random order: all, or `level` drawn uniformly."""
    listed = [_listed(*shape, None) for shape in _shapes(widths)]
    groups = [
        tuple(layer[own] for layer, own in zip(listed, counts, strict=True))
        for counts in product(*listed)
        if sum(counts) == count
    ]
    ends = list(accumulate(prod(map(len, group)) for group in groups))
    for place in generator.sample(range(ends[-1]), min(level, ends[-1])):
        index = bisect_right(ends, place)
        ones, twos, threes = groups[index]
        rest, third = divmod(place - (ends[index - 1] if index else 0), len(threes))
        first, second = divmod(rest, len(twos))
        yield Structure(widths, (ones[first], twos[second], threes[third]))


def _scattered(widths: Widths, count: int, generator: random.Random) -> Structure | None:
    """A whole triple without random weights, none the last of its row or column; None if that many cannot go so."""
    shapes = _shapes(widths)
    places = [(layer, i, j) for layer, own in enumerate(shapes) for i, j in product(*map(range, own))]
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
    one, two, three = (tuple(own) for own in kept)
    return None if surplus else Structure(widths, (one, two, three))


def how_many(rows: int, columns: int) -> int:
    """How many supports there are of all counts together, by inclusion and exclusion over empty columns.

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
    """A grid of pruned networks of several widths: how many weights are asked for, and how often each is repeated."""

    widths: tuple[int, ...]
    requests: tuple[int, ...]
    repeats: int = 1

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Width and weights asked for, but where the network has no more than these."""
        return [(w, n) for w, n in product(self.widths, self.requests) if n < Structure((w, w, w)).weights]

    def runs(self, methods: int = 9, settings: int = 9) -> int:
        """How many runs so many methods at so many settings of the training make."""
        return len(self.cells) * self.repeats * methods * settings


@dataclass(frozen=True)
class WholeStructure:
    """One of the study's four searches: the accuracy to reach, its first phase, the triple that came of it, its second.

    lrs: of the second phase; the first and the pruning methods have two and three. fixed: all runs have one
    initialisation.
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
"""The grid of over-parameterised networks, which both searches from random initialisations share."""

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
"""The study's searches, with where it stopped short of all supports."""


def _matrix(support: Support, columns: int) -> Tensor:
    """A support as a bool matrix."""
    rows = torch.tensor(support)[:, None]
    return (rows >> torch.arange(columns - 1, -1, -1) & 1).bool()
