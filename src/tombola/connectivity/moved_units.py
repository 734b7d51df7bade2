"""What a ticket keeps, and which units it removed, after the units of its network have moved."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor, nn

from tombola.connectivity.matching import Matching
from tombola.errors import TombolaError
from tombola.methods import granularity_used
from tombola.structure import (
    HEAD,
    NM,
    ChannelAndHeadUnits,
    ChannelUnits,
    CoupledUnits,
    Probe,
    Slice,
    UnitGroup,
    UnitMap,
)
from tombola.tickets import Ticket, TieWarning, parameters_of


def removed_after(matching: Matching, ticket: Ticket, model: nn.Module, probe: Probe) -> Ticket:
    """The ticket with its mask, and the numbers of the units that it removed, as its network's units have moved.

    Where the units that were removed cannot be named again, as where parts of two units came together, none are named:
    the ticket then trains as a masked network and not as a smaller one.

    Args:
        matching: says where the units are now.
        ticket: what it keeps of the network as it was.
        model: a network of its architecture.
        probe: calls it on an example.

    Raises:
        TombolaError: if the ticket keeps n of each m neighbouring weights, and the moves part neighbours.
    """
    moved = replace(ticket, mask=matching.mask(ticket.mask), removed={})
    used = granularity_used(ticket.provenance.settings)
    if isinstance(used, NM) and not _keeps_pattern(moved, used, model, probe):
        raise TombolaError(
            f"the ticket keeps {used.name} of neighbouring weights, and matching parts neighbours; transfer a ticket "
            "of single weights or channels"
        )
    if not ticket.removed or used is None:
        return moved
    units, parameters = used.units(model, probe), parameters_of(model)
    for removed in (ticket.removed, _renumbered(matching, ticket, units, model)):
        if units.expand(units.kept(removed), parameters).digest == moved.mask.digest:
            return replace(moved, removed=removed)
    return moved


def _keeps_pattern(ticket: Ticket, used: NM, model: nn.Module, probe: Probe) -> bool:
    scores = {name: ticket.mask[name].float() for name in ticket.mask}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TieWarning)
        kept = used.units(model, probe).choose(scores, used.n / used.m, scope="global", within=None, floor=0)
    return kept.digest == ticket.mask.digest


def _renumbered(matching: Matching, ticket: Ticket, units: UnitMap, model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The removed units by the numbers that they have after the moves."""
    renumbered = {}
    for name, gone in ticket.removed.items():
        places = _places(units, name)
        if places is None:
            renumbered[name] = gone
            continue
        part, unit_at = places
        came = _index(matching, model, part)  # the position that comes to each position
        left = {position for position, unit in unit_at.items() if unit in set(gone)}
        renumbered[name] = tuple(sorted({unit for at, unit in unit_at.items() if int(came[at]) in left}))
    return renumbered


def _places(units: UnitMap, name: str) -> tuple[Slice, dict[int, int]] | None:
    """Where the units of a group lie along one dimension of a parameter, and which is at each position."""
    if isinstance(units, ChannelAndHeadUnits):
        return _places(units.heads if name.startswith(HEAD) else units.channels, name.removeprefix(HEAD))
    if isinstance(units, CoupledUnits):
        members = units.families.members[name]
        for group in units.groups:
            part = _axis(group)
            if group.name in members and part is not None:
                numbers = enumerate(members[group.name].tolist())
                return part, {place: unit for at, unit in numbers if unit >= 0 for place in part.positions[at]}
        return None
    groups = units.groups if isinstance(units, ChannelUnits) else getattr(units, "inner", getattr(units, "groups", ()))
    for group in groups:
        if isinstance(group, UnitGroup) and group.name == name and (part := _axis(group)) is not None:
            return part, {place: unit for unit, places in enumerate(part.positions) for place in places}
    return None


def _axis(group: UnitGroup) -> Slice | None:
    return next((part for part in group.slices if part.dim is not None), None)


def _index(matching: Matching, model: nn.Module, part: Slice) -> Tensor:
    """Which position of a parameter's dimension has come to each of its positions."""
    parameter = parameters_of(model)[part.parameter]
    assert part.dim is not None
    numbers = torch.arange(parameter.shape[part.dim])
    shape = [1] * parameter.ndim
    shape[part.dim] = -1
    moved = matching.tensors({part.parameter: numbers.reshape(shape).expand(parameter.shape)})[part.parameter]
    return moved.movedim(part.dim, 0).flatten(1)[:, 0]
