"""Carries a ticket to another task: its mask and start of the body stay, and a new head is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.methods import granularity_used
from tombola.structure import UnitMap, head_parameters
from tombola.tickets import Mask, Seed, Ticket, Values, parameters_of, tensors_of
from tombola.training import Run, Task, start_of


def carry(task: Task, ticket: Ticket, other: Task, *, seed: int | None = None) -> Ticket:
    """Carry a ticket to another task of the same network (Chen et al., NeurIPS 2020).

    All but the head keeps the ticket's mask and starts from the ticket's values. The head (`structure.head_parameters`)
    is the other task's own, whole and new. The ticket trains through the other recipe from its beginning, at the
    learning rate and epochs that it prescribes.

    Args:
        task: the ticket's own task.
        ticket: what is carried.
        other: the other task, whose network may only differ in its head.
        seed: of the new head; the ticket's own if None.

    Returns:
        The ticket there. Does it win? `tb.check(other, …)` tells.

    Raises:
        TombolaError: if the networks differ beside their heads, or the ticket removed units of the head.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_network, toy_task
        >>> ticket = tb.find(toy_task(), tb.OneShot(density=0.5, score=tb.scores.Magnitude()))
        >>> def ten_classes():
        ...     return nn.Sequential(*list(toy_network())[:-1], nn.Linear(96, 10))
        >>> there = carry(toy_task(), ticket, toy_task(ten_classes))
        >>> "8.weight" in there.mask, there.mask["3.weight"].equal(ticket.mask["3.weight"])
        (False, True)
    """
    if seed is None:
        seed = ticket.start.seed if isinstance(ticket.start, Seed) else ticket.provenance.seed or 0
    own, there = start_of(task, ticket, seed), other.build(seed)
    head = set(head_parameters(there)) | set(head_parameters(own))
    body, built = ({name: t for name, t in tensors_of(net).items() if name not in head} for net in (own, there))
    _check_bodies(body, built)
    mask, removed = _mask_there(ticket, there, head, other)
    start: Seed | Values
    if isinstance(ticket.start, Seed) and all(own_values.equal(built[name]) for name, own_values in body.items()):
        start = Seed.of(there, seed)
    else:
        what = ticket.start.what if isinstance(ticket.start, Values) else "init"
        spent = ticket.start.epochs_spent if isinstance(ticket.start, Values) else 0.0
        start = Values(tensors_of(there) | body, what, spent)
    recipe = {name: value for name, value in ticket.recipe.items() if name != "start"}
    carried = {"from": ticket.digest, "from_task": dict(ticket.provenance.task)}
    settings = {**ticket.provenance.settings, "carried": carried}
    labels = dict(getattr(other, "labels", {}))
    provenance = replace(ticket.provenance, settings=settings, task=labels, whole=None, before=None)
    held = tuple(name for name in ticket.held if name not in head)
    return replace(ticket, mask=mask, start=start, removed=removed, recipe=recipe, held=held, provenance=provenance)


def _check_bodies(body: Mapping[str, Tensor], built: Mapping[str, Tensor]) -> None:
    """TombolaError unless two networks have the same tensors beside their heads."""
    for name in [*body, *built]:
        shapes = [tuple(part[name].shape) if name in part else "missing" for part in (body, built)]
        if shapes[0] != shapes[1]:
            raise TombolaError(
                f"the networks of the two tasks differ in '{name}', which is not of the head: {shapes[0]} and "
                f"{shapes[1]}; use the same network, with inputs of the same shape"
            )


def _mask_there(
    ticket: Ticket, there: nn.Module, head: set[str], other: Task
) -> tuple[Mask, Mapping[str, tuple[int, ...]]]:
    """The mask without that of the head; whole units that were removed take the new head's columns along."""
    if not ticket.removed:
        mask = {name: ticket.mask[name] for name in ticket.mask if name not in head}
        if not mask:
            raise TombolaError("the ticket removes weights of the head alone, and nothing of it would be left")
        return Mask.of(mask), {}
    units = _units(ticket, there, other)
    kept = units.kept(ticket.removed)
    return units.expand(kept, parameters_of(there)), ticket.removed


def _units(ticket: Ticket, there: nn.Module, other: Task) -> UnitMap:
    granularity: Any = granularity_used(ticket.provenance.settings)
    if granularity is None:
        raise TombolaError(
            "the ticket does not say what its units are, so that they cannot be found in another network; find it anew"
        )
    return granularity.units(there, Run(0).probe(other))
