"""Transfers a ticket to another initialisation: its mask goes to the units there that do what its own units do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import nn

from tombola.connectivity.dense_pair import (
    check_moves,
    other_network,
    own_network,
    own_seed_of,
    point_of,
    start_there,
    train_dense,
)
from tombola.connectivity.lines import POINTS, Ends, Line, barrier, check_lines
from tombola.connectivity.mask_overlap import overlap
from tombola.connectivity.matching import By, Matching, check_alike, match
from tombola.connectivity.moved_units import removed_after
from tombola.tickets import Provenance, Ticket
from tombola.training import (
    Cost,
    Run,
    Split,
    Task,
    agreed_device,
    bars,
    check_first_batch,
)


@dataclass(frozen=True, eq=False)
class Transfer:
    """A ticket on another initialisation.

    Args:
        ticket: its mask, moved with the units that it kept, on the other initialisation.
        unmatched: the mask as it was on that initialisation, to compare with.
        matching: of the dense network of the ticket's own initialisation with that of the other one.
        lines: the line between these two dense networks, with the units as they were and after they were matched.
        seeds: of the two initialisations; None for one that was given as a network.
        cost: of the two dense trainings.
    """

    ticket: Ticket
    unmatched: Ticket
    matching: Matching
    lines: tuple[Line, Line]
    seeds: tuple[int | None, int | None]
    cost: Cost

    @property
    def iou(self) -> float:
        """How much of the mask is where it was: intersection over union with the mask before it moved."""
        return overlap(self.ticket.mask, self.unmatched.mask).iou

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        likeness, before = (
            fmean(own.values()) if own else 0.0 for own in (self.matching.likeness, self.matching.before)
        )
        unit = "correlation" if self.matching.by == "activations" else "cosine"
        unmatched, matched = (line.measure.about(line.barrier) for line in self.lines)
        said = (
            f"Matched by {self.matching.by}, {self.matching.moved:.0%} of the units changed places; the mean {unit} of "
            f"a unit with the one in its place rose from {before:.2f} to {likeness:.2f}. The barrier between the two "
            f"dense networks is {unmatched} as they are, and {matched} with matched units."
        )
        if fixed := self.matching.symmetries.fixed:
            name, others = next(iter(fixed)), len(fixed) - 1
            more = f" and {others} other layer{'s' * (others > 1)}" if others else ""
            said += f" The outputs of '{name}'{more} stayed in place ({fixed[name]})."
        if unheard := self.matching.unheard:
            said += f" No layer shows what the units of '{unheard[0]}' do: they were matched by their weights."
        return said

    def __str__(self) -> str:
        return self.sentence


def transfer(
    task: Task,
    ticket: Ticket,
    to: int | nn.Module,
    *,
    by: By = "activations",
    source: nn.Module | None = None,
    points: int = POINTS,
    split: Split = "test",
    device: torch.device | str = "auto",
    run: Run | None = None,
) -> Transfer:
    """Transfer a ticket to another initialisation by matching units (Adnan et al., ICML 2025).

    The dense network is trained from the ticket's own initialisation and from the other one. The units of the first
    are matched with those of the second (`connectivity.match`), and the mask moves with them. A ticket that rewinds to
    a step starts from that step of the other dense training, and one that keeps trained weights from its end. To its
    own seed it stays as it is.

    Args:
        task: what was and will be learnt.
        ticket: what is transferred.
        to: the seed of the other initialisation, or a network of the same layers whose values are one.
        by: what is compared, "activations" or "weights".
        source: the trained dense network that the ticket was found on, if it need not be trained again.
        points: of the lines between the two dense networks.
        split: that these are measured on.
        device: where networks train: the run's, or without a run CUDA if there is one, else the CPU.
        run: keeps finished trainings, so that a killed call goes on; in memory if None.

    Returns:
        The ticket there. Does it win? `tb.check` tells.

    Raises:
        TombolaError: if the networks differ in their layers, no unit can change places, or the ticket's values or
            pattern are of its own network alone.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> task = toy_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 5)))
        >>> ticket = tb.find(task, tb.OneShot(density=0.5))
        >>> moved = tb.transfer(task, ticket, 1, points=3).ticket
        >>> moved.mask.counts == ticket.mask.counts, moved.start.seed
        (True, 1)
    """
    check_lines(points, (split,), ("anew",))
    own_seed = own_seed_of(ticket, source)
    check_moves(ticket, to)
    device = agreed_device(device, None if run is None else run.device)
    if run is None:
        with bars() as shown:
            run = Run(0, device=device, bars=shown)
            return transfer(task, ticket, to, by=by, source=source, points=points, split=split, run=run)
    check_first_batch(task, 0 if own_seed is None else own_seed, run.device)
    first, second = own_network(task, ticket, own_seed), other_network(task, ticket, to)
    check_alike(first, second)
    start = ticket.start if to == own_seed and isinstance(to, int) else start_there(ticket, to, second)
    costs = []
    with run.bars.track("dense networks", 1 + (source is None)) as tick:
        if source is None:
            assert own_seed is not None
            first, _, cost = train_dense(task, first, own_seed, "", run)
            costs.append(cost)
            tick("from its own initialisation")
        else:
            check_alike(source, first)
            first = source.to(run.device)
        order = to if isinstance(to, int) else 0 if own_seed is None else own_seed
        second, values, cost = train_dense(task, second, order, point_of(ticket), run)
        costs.append(cost)
        tick("from the other")
    matching = match(task, first, second, by=by)
    there = replace(ticket, start=start or values)
    cost = sum(costs, Cost())
    moved = removed_after(matching, ticket, second, run.probe(task))
    seed = to if isinstance(to, int) else None
    unmatched = replace(there, provenance=_provenance(ticket, seed, "no matching", cost))
    carried = replace(there, mask=moved.mask, removed=moved.removed, provenance=_provenance(ticket, seed, by, cost))
    lines = [
        barrier(task, Ends(one, second), points=points, splits=(split,), statistics=("anew",))[0]
        for one in (first, matching.network(first))
    ]
    return Transfer(carried, unmatched, matching, (lines[0], lines[1]), (own_seed, seed), cost)


def _provenance(ticket: Ticket, seed: int | None, by: str, cost: Cost) -> Provenance:
    """Where the transferred ticket comes from: the old one's search, and the two dense trainings."""
    old = ticket.provenance
    search: dict[str, Any] = dict(old.cost)
    spent = asdict(Cost(**search) + cost)
    transferred = {"from": ticket.digest, "from_seed": old.seed, "by": by}
    settings = {**old.settings, "transferred": transferred}
    return replace(old, settings=settings, cost=spent, seed=seed, whole=None, before=None)
