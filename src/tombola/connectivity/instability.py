"""What copies that trained from one point came to: their pairs, the points, and what these say of stability."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from tombola.connectivity.copies import OWN_START
from tombola.connectivity.lines import Line
from tombola.evidence import Measure
from tombola.training import Cost

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
    def measure(self) -> Measure:
        """What the metric is."""
        return self.pairs[0].lines[0].measure

    @property
    def said(self) -> str:
        """The barrier, with its unit."""
        return self.measure.about(self.barrier)

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
        said = f"Training from {_named(first.at)} is {word}: barrier {first.said}"
        if first.stable and stable is not first:
            later = next(point for point in self.points if not point.stable)
            return f"{said}; but from {_named(later.at)} it is not: {later.said}."
        if first.stable or (stable is None and len(self.points) == 1):
            return f"{said}."
        if stable is None:
            return f"{said}; it is stable from no measured point."
        return f"{said}; from {_named(stable.at)} it is: {stable.said}."

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
        if not all(line.measure.share for line in lines):
            notes.append(
                "The metric is no share, so that two points of error mean nothing: the limit was "
                f"{self.points[0].limit:g} in its own unit; give another one as limit=."
            )
            return tuple(notes)
        coarse = {line.split: line for line in lines if line.resolution > self.points[0].limit}
        for split, line in coarse.items():
            resolution, rule = map(line.measure.about, (line.resolution, self.points[0].limit))
            notes.append(
                f"The {split} split has {line.samples} samples, which show an error to ±{resolution}: "
                f"only a larger barrier is surely one, where the rule is {rule}."
            )
        return tuple(notes)

    def __str__(self) -> str:
        return " ".join([self.sentence, *self.notes])


def _named(at: str) -> str:
    return {OWN_START: "the ticket's start", "0it": "the initialisation"}.get(at, at)
