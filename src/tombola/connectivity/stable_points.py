"""Is training from a point stable: do copies that train from it in different orders end in one linear basin?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch

from tombola.connectivity.copies import OWN_START, Copies, Origin, find_copies, origin_of
from tombola.connectivity.earliest_point import bisected
from tombola.connectivity.instability import LIMIT, Pair, Point, Stability
from tombola.connectivity.lines import POINTS, Ends, Statistics, apart, barrier, check_lines
from tombola.errors import TombolaError
from tombola.methods import Method
from tombola.tickets import Seed, Ticket, parameters_of, tensors_of
from tombola.training import Cost, Run, Split, Step, Task, agreed_device, bars


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
        steps = origins[0].steps_per_epoch
        measured += bisected(measured, steps, steps * task.recipe.epochs, measure)
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
