"""How trained networks lie to each other: barriers, angles and distances of each two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from tombola.connectivity.lines import POINTS, Ends, Line, barrier, check_lines
from tombola.connectivity.mask_overlap import overlap
from tombola.connectivity.trained_rounds import DENSE, TICKET, Solution, Solutions
from tombola.errors import TombolaError
from tombola.evidence import ACCURACY, Measure
from tombola.tickets import Mask
from tombola.training import Bars, Split, Task, bars

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Landscape:
    """How trained networks lie to each other: each matrix has a row and a column a network, with zeros on its diagonal.

    Args:
        names: of the networks.
        split: that the lines were measured on.
        barriers: of the metric on the line between two networks, statistics of batch norms taken anew.
        loss_barriers: of the loss.
        angles: between two networks as vectors, in right angles.
        distances: Euclidean.
        mask_distances: 1 − intersection over union of two masks; 1 kept and 0 removed where a network is dense.
        samples: of the split.
        measure: what the metric is.
    """

    names: tuple[str, ...]
    split: Split
    barriers: Matrix
    loss_barriers: Matrix
    angles: Matrix
    distances: Matrix
    mask_distances: Matrix
    samples: int
    measure: Measure = ACCURACY

    def between(self, first: str, second: str) -> float:
        """The barrier between two networks; TombolaError if there is none of a name."""
        for name in (first, second):
            if name not in self.names:
                raise TombolaError(f"there is no solution '{name}'; there are {', '.join(self.names)}")
        return self.barriers[self.names.index(first)][self.names.index(second)]

    @property
    def sentence(self) -> str:
        """What it shows of the ticket, in words: where its training came to, beside where it was pruned from."""
        if TICKET not in self.names or len(self.names) < 2:
            return ""
        last = self.names[self.names.index(TICKET) - 1]
        said = f"Between the ticket's solution and {_called(last)} the barrier is {self._points(last)}"
        if DENSE in self.names and last != DENSE:
            said += f", and to the dense solution {self._points(DENSE)}"
        return f"{said} ({self.split} split, {self.samples} samples)."

    def _points(self, name: str) -> str:
        return f"{self.measure.about(self.between(TICKET, name))} at an angle of {90 * self._angle(name):.0f}°"

    def _angle(self, name: str) -> float:
        return self.angles[self.names.index(TICKET)][self.names.index(name)]


class _Pair(NamedTuple):
    line: Line
    ends: Ends
    masks: tuple[Mask, Mask]


def landscape(
    task: Task,
    networks: Sequence[Solution] | Solutions,
    *,
    points: int = POINTS,
    split: Split = "test",
    shown: Bars | None = None,
) -> Landscape:
    """Measure how trained networks lie to each other; nothing is trained.

    The line between two networks with different masks runs over what both keep, and so do angle and distance (Maene et
    al., 2021). Each line costs one evaluation a point.

    Args:
        task: gives data, forward pass, loss and metric.
        networks: at least two, as of `solutions`.
        points: of each line.
        split: that lines are measured on.
        shown: the bars among which this work shows its own; a terminal's if None.

    Raises:
        TombolaError: if there are fewer than two networks, or they differ in their layers.

    Examples:
        >>> from tombola.testing import toy_task
        >>> task = toy_task()
        >>> pair = [Solution(str(seed), task.build(seed), Mask({})) for seed in (0, 1)]
        >>> landscape(task, pair, points=3).angles[0][0]
        0.0
    """
    check_lines(points, (split,), ("anew",))
    networks = networks.networks if isinstance(networks, Solutions) else tuple(networks)
    if len(networks) < 2:
        raise TombolaError("a landscape needs two networks; give several solutions")
    pairs: dict[tuple[int, int], _Pair] = {}
    count = len(networks) * (len(networks) - 1) // 2
    with bars(shown is None) as own, (shown or own).track("lines", count) as tick:
        for one, other in combinations(range(len(networks)), 2):
            masks = _masks(networks[one], networks[other])
            ends = Ends(networks[one].network, networks[other].network, masks)
            (line,) = barrier(task, ends, points=points, splits=(split,), statistics=("anew",))
            pairs[one, other] = _Pair(line, ends, masks)
            tick(f"{networks[one].name}, {networks[other].name}")

    def matrix(of: Callable[[_Pair], float]) -> Matrix:
        size, values = range(len(networks)), {at: of(pair) for at, pair in pairs.items()}
        return tuple(tuple(0.0 if row == at else values[min(row, at), max(row, at)] for at in size) for row in size)

    return Landscape(
        tuple(own.name for own in networks),
        split,
        matrix(lambda pair: pair.line.barrier),
        matrix(lambda pair: pair.line.loss_barrier),
        matrix(lambda pair: pair.ends.angle),
        matrix(lambda pair: pair.ends.distance),
        matrix(lambda pair: 1 - overlap(*pair.masks).iou),
        pairs[0, 1].line.samples,
        pairs[0, 1].line.measure,
    )


def _masks(one: Solution, other: Solution) -> tuple[Mask, Mask]:
    """Both masks over the same parameters; a network keeps all of those that its own mask does not name."""
    shapes = {**one.mask.shapes, **other.mask.shapes}
    full = Mask.full(shapes)
    first, second = (Mask({name: {**full.bits, **own.mask.bits}[name] for name in shapes}) for own in (one, other))
    return first, second


def _called(name: str) -> str:
    return "the dense solution" if name == DENSE else f"the last one of its search ({name})"
