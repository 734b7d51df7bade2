"""Copies of one network that train from the same point, each with a data order of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.methods import Method, find
from tombola.tickets import Mask, Seed, Ticket, Values, tensors_of
from tombola.training import (
    Cost,
    Member,
    Run,
    Snapshot,
    Step,
    Task,
    Until,
    check_first_batch,
    fingerprint,
    identity,
    length_of,
    mixed,
    recipe_of,
    start_of,
    train_together,
)
from tombola.training.ensemble.member import fingerprint_of

OWN_START = "start"
ORDER = 27
"""Tells the orders of copies apart from the orders of all else that trains with a seed."""


@dataclass(frozen=True)
class Copies:
    """Copies that trained from one point.

    Args:
        start: the values from which they trained, dead weights at zero.
        step: the point, in optimizer steps.
        networks: the trained copies.
        mask: what they keep; empty for the dense network.
        cost: of their training, the way to the point not counted.
        together: how many of them trained at once.
    """

    start: Mapping[str, Tensor]
    step: int
    networks: tuple[nn.Module, ...]
    mask: Mask
    cost: Cost
    together: int


@dataclass(frozen=True)
class Origin:
    """From where copies train: one initialisation of the dense network, and what is kept of it.

    Args:
        task: what they learn.
        ticket: what they keep; None for the dense network.
        seed: of the initialisation and of the dense training that leads to a later point.
        run: keeps finished trainings.
        searched: what the search for the ticket cost, if there was one.
    """

    task: Task
    ticket: Ticket | None
    seed: int
    run: Run
    searched: Cost = field(default_factory=Cost)

    @property
    def steps_per_epoch(self) -> int:
        return self.task.recipe.steps(length_of(self.task.batches("train", 0, 0)))

    def at(self, points: Sequence[str]) -> tuple[dict[str, Ticket], Cost]:
        """The ticket that trains from each point, and what the dense training to the last of them cost.

        A copy is a ticket even if nothing is masked, since a ticket brings its start with it.
        """
        dense = [point for point in points if point != OWN_START and self._steps(point) > 0]
        values, cost = self._dense_values(dense) if dense else ({}, Cost())
        return {point: self._from(point, values) for point in points}, cost

    def _from(self, point: str, values: Mapping[str, Values]) -> Ticket:
        ticket = self.ticket
        if point == OWN_START and ticket is not None:
            return replace(ticket, removed={})  # masked, so that all copies have the shapes of the whole network
        start = values.get(point) or Values(tensors_of(start_of(self.task, self._at_beginning, self.seed)), "init")
        if ticket is None:
            ticket = Ticket(Mask({}), start)
        recipe = {name: value for name, value in ticket.recipe.items() if name != "start"}
        recipe |= {"start": point} if point in values else {}
        return replace(ticket, start=start, recipe=recipe, removed={})

    @property
    def _at_beginning(self) -> Ticket | None:
        return self.ticket if self.ticket is not None and isinstance(self.ticket.start, Seed) else None

    def _steps(self, point: str) -> int:
        return Step.parse(point).iterations(self.steps_per_epoch)

    def _dense_values(self, points: Sequence[str]) -> tuple[dict[str, Values], Cost]:
        if self.ticket is not None and isinstance(self.ticket.start, Seed) and self.ticket.start.weights != "own":
            raise TombolaError(
                f"the ticket starts from {self.ticket.start.weights} weights, from which no dense network was trained; "
                "leave out the later points"
            )
        last = max(map(self._steps, points))
        total = self.task.recipe.epochs * self.steps_per_epoch
        if last >= total:
            late = max(points, key=self._steps)
            raise TombolaError(
                f"training ends after {total} steps, so that no copy can train from {late}; give an earlier point"
            )
        settings = fingerprint_of(self.task, [Member(self.seed)])
        name = f"dense-{fingerprint([settings, self.seed, sorted(points)])}"
        run, snapshots = self.run.part(name, self.seed), [Snapshot(Step.parse(point)) for point in points]
        model = self.task.build(self.seed).to(run.device)
        until = Until(math.ceil(last / self.steps_per_epoch))
        fit = run.stage("dense", self.task, model, observers=[*snapshots, until])
        taken = zip(points, snapshots, strict=True)
        return {point: Values(own.taken, point, own.epochs_spent) for point, own in taken}, fit.cost


def origin_of(task: Task, subject: Ticket | Method | None, seed: int, run: Run) -> Origin:
    """What copies of a subject start from.

    Args:
        task: what they learn.
        subject: a ticket, a method that finds one with this seed, or None for the dense network.
        seed: of the initialisation; a ticket has its own.
        run: keeps finished trainings.
    """
    if isinstance(subject, Ticket):
        own = subject.start.seed if isinstance(subject.start, Seed) else subject.provenance.seed
        return Origin(task, subject, seed if own is None else own, run)
    if subject is None:
        return Origin(task, None, seed, run)
    name = f"search-{fingerprint([fingerprint_of(task, [Member(seed)]), identity(subject), seed])}"
    part = run.part(name, seed)
    return Origin(task, find(task, subject, run=part), seed, run, part.cost)


def find_copies(origin: Origin, points: Sequence[str], orders: int) -> tuple[dict[str, Copies], Cost]:
    """Train copies from each point, those of one point at once where the network can be batched.

    Args:
        origin: from where they train.
        points: as "0it", "500it", "1ep", or "start" for a ticket's own start.
        orders: how many copies, each with an order of the data of its own.

    Returns:
        The copies from each point, and what the way to the points cost.

    Raises:
        TombolaError: if training ends before a point, or a copy's loss stops being finite.
    """
    check_first_batch(origin.task, origin.seed, origin.run.device)
    tickets, way = origin.at(points)
    found = {}
    for point, ticket in tickets.items():
        members = [Member(mixed(origin.seed, ORDER, order), ticket) for order in range(orders)]
        trained = train_together(origin.task, members, run=origin.run)
        for order, own in enumerate(trained):
            if own.diverged:
                raise TombolaError(f"copy {order + 1} from {point} cannot be compared: {own.diverged}")
        start = start_of(origin.task, ticket, origin.seed)
        for name, parameter in start.named_parameters():
            if name in ticket.mask and ticket.dead == "zero":
                parameter.data *= ticket.mask[name]
        recipe = recipe_of(origin.task, ticket)
        step = Step.parse(recipe.start).iterations(origin.steps_per_epoch)
        cost = sum((own.cost for own in trained), Cost())
        networks = tuple(own.model for own in trained)
        mask = ticket.mask if ticket.dead == "zero" else Mask({})
        found[point] = Copies(tensors_of(start), step, networks, mask, cost, trained[0].together)
    return found, way
