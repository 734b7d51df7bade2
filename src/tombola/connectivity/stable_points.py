"""Is training from a point stable: do copies that train from it in different orders end in one linear basin?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import torch

from tombola.connectivity.copies import OWN_START, Copies, Origin, find_copies, origin_of
from tombola.connectivity.lines import POINTS, Ends, Line, Statistics, apart, barrier, check_lines
from tombola.errors import TombolaError
from tombola.methods import Method
from tombola.tickets import Seed, Ticket, parameters_of, tensors_of
from tombola.training import Cost, Run, Split, Step, Task, agreed_device, bars

LIMIT = 0.02
"""Training is stable where the barrier is smaller: two points of error (Frankle et al., ICML 2020)."""
SAME = 1e-4
"""Copies that are apart by a smaller share of their way are the same but for rounding."""


@dataclass(frozen=True)
class Pair:
    """Two copies, and the lines between them.

    Args:
        seed: of the initialisation.
        orders: which two of the data orders.
        lines: as `barrier` gives them.
        distance: Euclidean, between the copies.
        travelled: the mean Euclidean distance of the two from where they started.
        angle: between the copies as vectors, in right angles.
    """

    seed: int
    orders: tuple[int, int]
    lines: tuple[Line, ...]
    distance: float
    travelled: float
    angle: float

    @property
    def same(self) -> bool:
        """Whether the two copies are one network, but for rounding."""
        return self.distance <= SAME * self.travelled


@dataclass(frozen=True)
class Point:
    """A point of training, and what copies that trained from it came to.

    Args:
        at: the point, as "500it"; "start" is a ticket's own.
        step: the point in optimizer steps.
        pairs: of copies, over all initialisations.
        limit: from this barrier on, training is not stable.
        together: how many copies trained at once.
    """

    at: str
    step: int
    pairs: tuple[Pair, ...]
    limit: float
    together: int

    @property
    def barriers(self) -> dict[str, float]:
        """The mean barrier of each split and treatment of statistics, as "test" or "test, interpolated"."""
        return {name: fmean(own.barrier for own in lines) for name, lines in self._lines.items()}

    @property
    def loss_barriers(self) -> dict[str, float]:
        """As `barriers`, of the loss."""
        return {name: fmean(own.loss_barrier for own in lines) for name, lines in self._lines.items()}

    @property
    def barrier(self) -> float:
        """The instability: the first split's mean barrier, with statistics taken anew unless that was not asked for."""
        return next(iter(self.barriers.values()))

    @property
    def stable(self) -> bool:
        return self.barrier < self.limit

    @property
    def _lines(self) -> dict[str, list[Line]]:
        named: dict[str, list[Line]] = {}
        for pair in self.pairs:
            for line in pair.lines:
                name = line.split + (", interpolated" if line.statistics == "interpolated" else "")
                named.setdefault(name, []).append(line)
        return named


@dataclass(frozen=True)
class Stability:
    """From which points the training of a network is stable.

    Args:
        subject: what trained: "dense", or what a ticket is.
        points: in their order in training.
        cost: of all trainings, those to reach the points too.
    """

    subject: str
    points: tuple[Point, ...]
    cost: Cost

    @property
    def earliest(self) -> Point | None:
        """The earliest measured point from which it, and all later measured ones, are stable."""
        stable = None
        for point in reversed(self.points):
            if not point.stable:
                break
            stable = point
        return stable

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        first, stable = self.points[0], self.earliest
        word = "stable" if first.stable else "not stable"
        said = f"Training from {_named(first.at)} is {word}: barrier {_points(first.barrier)}"
        if first.stable and stable is not first:
            later = next(point for point in self.points if not point.stable)
            return f"{said}; but from {_named(later.at)} it is not: {_points(later.barrier)}."
        if first.stable or (stable is None and len(self.points) == 1):
            return f"{said}."
        if stable is None:
            return f"{said}; it is stable from no measured point."
        return f"{said}; from {_named(stable.at)} it is: {_points(stable.barrier)}."

    @property
    def notes(self) -> tuple[str, ...]:
        """What the figures cannot show, each in a sentence."""
        pairs = [(point, pair) for point in self.points for pair in point.pairs]
        notes = []
        if same := [point.at for point in self.points if all(pair.same for pair in point.pairs)]:
            notes.append(
                f"From {', '.join(map(_named, same))} all copies are the same network: the order of the data has no "
                "effect there, and a barrier of 0 says nothing."
            )
        lines = [line for _, pair in pairs for line in pair.lines]
        metrics = [metric for line in lines for metric in line.metrics]
        if not all(0 <= metric <= 1 for metric in metrics):
            notes.append(
                "The metric is no share, so that two points of error mean nothing: the limit was "
                f"{self.points[0].limit:g} in its own unit; give another one as limit=."
            )
            return tuple(notes)
        coarse = {line.split: line for line in lines if line.resolution > self.points[0].limit}
        for split, line in coarse.items():
            notes.append(
                f"The {split} split has {line.samples} samples, which show an error to ±{_points(line.resolution)}: "
                f"only a larger barrier is surely one, where the rule is {_points(self.points[0].limit)}."
            )
        return tuple(notes)

    def __str__(self) -> str:
        return " ".join([self.sentence, *self.notes])


def stability(
    task: Task,
    subject: Ticket | Method | None = None,
    *,
    at: Sequence[str] | None = None,
    inits: int = 1,
    orders: int = 2,
    earliest: bool = False,
    points: int = POINTS,
    splits: Sequence[Split] = ("test",),
    statistics: Sequence[Statistics] = ("anew", "interpolated"),
    limit: float = LIMIT,
    seed: int = 0,
    run: Run | None = None,
    device: torch.device | str = "auto",
) -> Stability:
    """Measure from which points training is stable to the order of the data (Frankle et al., ICML 2020).

    Copies train from one point, each with a data order of its own. If the error hardly rises on the straight line
    between them, they ended in one linear basin, and training from that point is stable. Iterative magnitude pruning
    finds tickets that win when they are rewound to such a point.

    Args:
        task: gives network, data, metric and recipe.
        subject: a ticket, whose mask is put on the dense network at each point; a method, which finds a ticket for each
            initialisation; or None for the dense network.
        at: points of dense training, as "500it" or "1ep"; None takes a ticket's own start, and else the initialisation.
        inits: initialisations; 1 for a ticket, which has its own.
        orders: copies from each point; each two of them are a pair.
        earliest: look for the earliest stable point by bisection, to a sixteenth of an epoch, up to the last epoch. It
            takes training to be stable from all later points too.
        points: of a line, both ends among them.
        splits: to measure on.
        statistics: treatments of batch norms; the first decides what is stable.
        limit: from this barrier on, training is not stable; in the metric's unit.
        seed: of the first initialisation.
        run: keeps finished trainings in its folder, so that the same call goes on after a kill; in memory if None.
        device: where networks train.

    Returns:
        The points with their pairs of copies, lines and barriers.

    Raises:
        TombolaError: if a point is none or lies at the end of training, there are fewer than two copies, or a ticket
            shall have several initialisations.

    Examples:
        >>> from tombola.testing import toy_task
        >>> found = stability(toy_task(), at=["0it", "1ep"], points=5)
        >>> [(point.at, point.step, len(point.pairs)) for point in found.points]
        [('0it', 0, 1), ('1ep', 6, 1)]
    """
    check_lines(points, splits, statistics)
    _check(subject, at, inits, orders, limit)
    device = agreed_device(device, None if run is None else run.device)
    if run is None:
        with bars() as shown:
            run = Run(seed, device=device, bars=shown)
    asked = list(dict.fromkeys(at or ([OWN_START] if subject is not None else ["0it"])))
    origins = [origin_of(task, subject, seed + init, run) for init in range(inits)]
    ways: list[Cost] = [origin.searched for origin in origins]

    def measure(names: Sequence[str]) -> list[Point]:
        found = [find_copies(origin, names, orders) for origin in origins]
        ways.extend(way for _, way in found)
        measured = []
        for name in names:
            copies = [own[name] for own, _ in found]
            ways.extend(own.cost for own in copies)
            pairs = [
                pair
                for origin, own in zip(origins, copies, strict=True)
                for pair in _pairs(origin, own, points, splits, statistics)
            ]
            measured.append(Point(name, copies[0].step, tuple(pairs), limit, copies[0].together))
        return measured

    measured = measure(asked)
    if earliest:
        measured += _bisected(measured, origins[0], measure)
    ordered = tuple(sorted(measured, key=lambda point: point.step))
    return Stability("dense" if subject is None else str(origins[0].ticket), ordered, sum(ways, Cost()))


def _pairs(
    origin: Origin, copies: Copies, points: int, splits: Sequence[Split], statistics: Sequence[Statistics]
) -> list[Pair]:
    names = list(parameters_of(copies.networks[0]))
    away = [apart(tensors_of(network), copies.start, names) for network in copies.networks]
    pairs = []
    for one, other in combinations(range(len(copies.networks)), 2):
        ends = Ends(copies.networks[one], copies.networks[other])
        lines = barrier(origin.task, ends, points=points, splits=splits, statistics=statistics)
        travelled = (away[one] + away[other]) / 2
        pairs.append(Pair(origin.seed, (one, other), tuple(lines), ends.distance, travelled, ends.angle))
    return pairs


def _bisected(
    measured: Sequence[Point], origin: Origin, measure: Callable[[Sequence[str]], list[Point]]
) -> list[Point]:
    """Points between the last unstable one and the first stable one after it, until they are close."""
    steps, found = origin.steps_per_epoch, list(measured)
    close, end = max(1, steps // 16), steps * origin.task.recipe.epochs
    while True:
        low = max((point.step for point in found if not point.stable), default=-1)
        later = [point.step for point in found if point.stable and point.step > low]
        high = min(later, default=None)
        if high == 0 or (high is not None and high - low <= close):
            break
        if high is None:
            middle = min(max(2 * low, steps), end - steps)
            if middle <= low:
                break
        else:
            middle = 0 if low < 0 else (low + high) // 2
        (point,) = measure([f"{middle}it"])
        found.append(point)
    return found[len(measured) :]


def _check(subject: Ticket | Method | None, at: Sequence[str] | None, inits: int, orders: int, limit: float) -> None:
    if not (subject is None or isinstance(subject, Ticket) or callable(getattr(subject, "find", None))) or isinstance(
        subject, str
    ):
        raise TombolaError(
            f"the subject is a {type(subject).__name__}; give a ticket, a method as tb.method('imp'), or None for dense"
        )
    if isinstance(at, str):
        raise TombolaError(f"at is {at!r}; give a list of points, as [{at!r}]")
    for point in at or ():
        if point != OWN_START:
            Step.parse(point)
        elif subject is None:
            raise TombolaError("the dense network has no start of its own; give its points as '0it' or '500it'")
    if not (isinstance(inits, int) and isinstance(orders, int)) or inits < 1 or orders < 2:
        raise TombolaError(f"inits is {inits} and orders is {orders}; give at least 1 and 2, since pairs are compared")
    if not (math.isfinite(limit) and limit > 0):
        raise TombolaError(f"limit is {limit}; give a barrier above 0, as {LIMIT}")
    if isinstance(subject, Ticket) and inits > 1:
        raise TombolaError("a ticket has one initialisation, its own; leave inits at 1, or give its method")
    unknown = isinstance(subject, Ticket) and not isinstance(subject.start, Seed) and subject.provenance.seed is None
    if unknown and any(point != OWN_START for point in at or ()):
        raise TombolaError(
            "the ticket starts from stored values and does not say from which seed its network was built, so that no "
            "other point can be reached; leave out the points"
        )


def _named(at: str) -> str:
    return {OWN_START: "the ticket's start", "0it": "the initialisation"}.get(at, at)


def _points(barrier: float) -> str:
    return f"{100 * barrier:.3g} points"
