"""A network as steps between maps of activations; convolutions and linear layers hold their kept weights alone."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["convolve", "add", "scale", "maximum", "mean", "pick"]
KINDS: tuple[Kind, ...] = ("convolve", "add", "scale", "maximum", "mean", "pick")
"""In the order of the kernels' numbers."""
TILES = (8, 16, 32, 64)
"""How many samples may lie side by side."""
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """The shape of a map.

    Args:
        channels: of it.
        height: rows; 1 for features.
        width: columns; 1 for features.
    """

    channels: int
    height: int = 1
    width: int = 1

    @property
    def size(self) -> int:
        """Activations of a sample."""
        return self.channels * self.height * self.width


@dataclass(frozen=True, eq=False)
class Kept:
    """The kept weights of a layer, by output channel.

    Args:
        starts: where each output channel's weights begin, and where the last one's end; (outputs + 1,).
        places: of each weight, its number among (inputs, rows, columns) of the kernel.
        values: the weights.
        kernel: rows and columns of the kernel.
    """

    starts: Ints
    places: Ints
    values: Floats
    kernel: tuple[int, int] = (1, 1)

    @staticmethod
    def of(weight: Floats) -> Kept:
        """What is not zero of a weight of shape (outputs, inputs, rows, columns)."""
        outputs = len(weight)
        flat = np.ascontiguousarray(weight, np.float32).reshape(outputs, -1)
        rows, places = np.nonzero(flat)
        starts = np.zeros(outputs + 1, np.int32)
        np.cumsum(np.bincount(rows, minlength=outputs), out=starts[1:])
        return Kept(starts, places.astype(np.int32), flat[rows, places], (weight.shape[2], weight.shape[3]))

    def dense(self, inputs: int) -> Floats:
        """The weight, with its zeros."""
        weight = np.zeros((len(self.starts) - 1, inputs * self.kernel[0] * self.kernel[1]), np.float32)
        rows = np.repeat(np.arange(len(weight)), np.diff(self.starts))
        weight[rows, self.places] = self.values
        return weight.reshape(len(weight), inputs, *self.kernel)


@dataclass(frozen=True, eq=False)
class Step:
    """One step: what it makes of which map.

    Args:
        kind: `convolve` takes `kept` and `bias`; `scale` a factor (`factors`) and `bias` for each channel; `maximum`
            and `mean` a `window`; `pick` takes input channels (`channels`, −1 for zeros) at each `stride`-th pixel;
            `add` takes the map as it is.
        source: the map that goes in.
        target: the map that comes out.
        added: a map that is added to the result.
        relu: whether the result is cut off below zero then.
        stride: of a window or kernel.
        padding: zeros around the map.
        layer: the network's layer that it is, if it has weights.
    """

    kind: Kind
    source: int
    target: int
    added: int | None = None
    relu: bool = False
    stride: int = 1
    padding: int = 0
    window: tuple[int, int] = (1, 1)
    kept: Kept | None = None
    factors: Floats | None = None
    channels: Ints | None = None
    bias: Floats | None = None
    layer: str = ""


@dataclass(frozen=True, eq=False)
class Program:
    """Steps from one map to another.

    Args:
        shapes: of the maps, by their numbers; map 0 is read in.
        steps: in their order.
        last: the map that comes out.
    """

    shapes: tuple[Shape, ...]
    steps: tuple[Step, ...]
    last: int

    @cached_property
    def rings(self) -> tuple[int, ...]:
        """The width of zeros around each map: as much padding as a convolution of it asks for."""
        rings = [0] * len(self.shapes)
        for step in self.steps:
            if step.kind == "convolve":
                rings[step.source] = max(rings[step.source], step.padding)
        return tuple(rings)

    @cached_property
    def seats(self) -> tuple[tuple[int, ...], int]:
        """Where each map begins, in floats of one sample, and how many there are; maps of a shape take turns.

        Places are shared only by maps of one shape and ring, so that a ring of zeros stays one.
        """
        until = dict.fromkeys(range(len(self.shapes)), -1)
        for number, step in enumerate(self.steps):
            until |= {map_: number for map_ in (step.source, step.added) if map_ is not None}
        until[self.last] = len(self.steps)
        free: dict[tuple[Shape, int], list[int]] = {}
        seats, end = [-1] * len(self.shapes), 0
        for number, target in enumerate([0, *(step.target for step in self.steps)], start=-1):
            key = (self.shapes[target], self.rings[target])
            if free.get(key):
                seats[target] = free[key].pop()
            else:
                seats[target], end = end, end + self._floats(target)
            for map_, over in until.items():
                if over == number and seats[map_] >= 0:
                    free.setdefault((self.shapes[map_], self.rings[map_]), []).append(seats[map_])
        return tuple(seats), end

    @cached_property
    def work(self) -> int:
        """Multiplications for one sample."""
        weighted = [(step.kept, self.shapes[step.target]) for step in self.steps if step.kept is not None]
        return sum(len(kept.values) * shape.height * shape.width for kept, shape in weighted)

    def distances(self, step: Step) -> Ints:
        """How far what each kept weight multiplies lies from the kernel's first place, in the step's source."""
        assert step.kept is not None
        shape, ring, (rows, columns) = self.shapes[step.source], self.rings[step.source], step.kept.kernel
        row = shape.width + 2 * ring
        channel, place = np.divmod(step.kept.places, rows * columns)
        down, right = np.divmod(place, columns)
        return (channel * row * (shape.height + 2 * ring) + down * row + right).astype(np.int32)

    @cached_property
    def read(self) -> Ints:
        """The inputs that anything is made of: what no kept weight multiplies is not read in."""
        users = [step for step in self.steps if 0 in (step.source, step.added)]
        if any(step.kind != "convolve" or step.added == 0 for step in users) or self.last == 0:
            return np.arange(self.shapes[0].size, dtype=np.int32)
        shape = self.shapes[0]
        used = np.zeros((shape.channels, shape.height, shape.width), bool)
        for step in users:
            assert step.kept is not None
            if step.kept.kernel == (shape.height, shape.width) and not step.padding:
                used.reshape(-1)[step.kept.places] = True
            else:
                used[np.unique(step.kept.places // (step.kept.kernel[0] * step.kept.kernel[1]))] = True
        return np.flatnonzero(used).astype(np.int32)

    def seats_read(self) -> Ints:
        """Where each input that is read goes."""
        shape, ring = self.shapes[0], self.rings[0]
        channel, place = np.divmod(self.read, shape.height * shape.width)
        down, right = np.divmod(place, shape.width)
        row = shape.width + 2 * ring
        at = channel * row * (shape.height + 2 * ring) + (down + ring) * row + right + ring
        return (at + self.seats[0][0]).astype(np.int32)

    def _floats(self, map_: int) -> int:
        shape, ring = self.shapes[map_], self.rings[map_]
        return shape.channels * (shape.height + 2 * ring) * (shape.width + 2 * ring)


class _Map(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int32) for name in ("channels", "height", "width", "ring")), ("at", ctypes.c_int64)]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("kind", "source", "added", "target")),
        *((name, ctypes.c_int32) for name in ("relu", "height", "width", "stride", "padding")),
        *((name, ctypes.c_void_p) for name in ("starts", "distances", "values", "bias")),
    ]


class _Program(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in ("steps", "maps", "samples", "inputs", "outputs", "first", "last", "used")
        ),
        *((name, ctypes.c_void_p) for name in ("read", "seats")),
        ("floats", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("step", "map")),
    ]


@dataclass(eq=False)
class Lowered:
    """A program as the kernels read it, with all that it points to.

    Args:
        program: what is lowered.
        tile: samples side by side.
    """

    program: Program
    tile: int
    _kept: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        program = self.program
        seats, self.floats = program.seats
        maps = [
            _Map(shape.channels, shape.height, shape.width, ring, at)
            for shape, ring, at in zip(program.shapes, program.rings, seats, strict=True)
        ]
        steps = [self._step(step) for step in program.steps]
        own = _Program(
            len(steps),
            len(maps),
            self.tile,
            program.shapes[0].size,
            program.shapes[program.last].size,
            0,
            program.last,
            len(program.read),
            self._at(program.read),
            self._at(program.seats_read()),
            self.floats,
            self._array(_Step, steps),
            self._array(_Map, maps),
        )
        self._kept.append(own)
        self.address = ctypes.addressof(own)

    def scratch(self, threads: int) -> Floats:
        """Maps for each thread, at an address that vectors like."""
        count = threads * self.floats * self.tile
        raw = np.zeros(count + 16, np.float32)
        skipped = (-raw.ctypes.data // 4) % 16
        return raw[skipped : skipped + count]

    def _step(self, step: Step) -> _Step:
        starts = step.kept.starts if step.kept is not None else step.channels
        values = step.kept.values if step.kept is not None else step.factors
        distances = self.program.distances(step) if step.kept is not None else None
        added = -1 if step.added is None else step.added
        pointers = [self._at(array) for array in (starts, distances, values, step.bias)]
        numbers = (KINDS.index(step.kind), step.source, added, step.target, step.relu, *step.window)
        return _Step(*numbers, step.stride, step.padding, *pointers)

    def _at(self, array: Ints | Floats | None) -> int | None:
        if array is None:
            return None
        own = np.ascontiguousarray(array)
        self._kept.append(own)
        return own.ctypes.data

    def _array(self, kind: type[ctypes.Structure], items: Sequence[ctypes.Structure]) -> int:
        array = (kind * len(items))(*items)
        self._kept.append(array)
        return ctypes.addressof(array)
