"""From a mask to what can be cut out of a network, and what stays dead within it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tombola.shrinking.cutting import Kept, axes_of, narrowed, within
from tombola.structure import INPUTS, Part, Probe, UnitGroup, numbers_of, residual_blocks, wiring_of
from tombola.tickets import Mask, check_fits, parameters_of


@dataclass(frozen=True, eq=False)
class Plan:
    """What can be cut out of a network.

    kept: of every layer that becomes smaller what stays; idle: blocks with a dead branch, which are left out whole;
    mask: what is dead and stays in the smaller network. lost: layers with dead channels that stay for no other reason
    than that torch-pruning cannot follow them, by the name of the operation at which it loses them.
    """

    kept: Mapping[str, Kept]
    idle: tuple[str, ...]
    mask: Mask
    lost: Mapping[str, str] = field(default_factory=dict)


def plan(model: nn.Module, mask: Mask, probe: Probe, parts: Sequence[Part] = (), *, bypass: bool = True) -> Plan:
    """What a mask lets be cut out: channels of which it keeps nothing, and those that so feed nothing.

    parts: units inside the network that are cut where the trace does not reach; bypass: whether residual blocks are
    left out where their branch is dead. A channel that others share an axis with (a residual stream's) can go
    only if all of them are dead.
    """
    parameters = parameters_of(model)
    check_fits(mask, parameters)
    network = wiring_of(model, probe, parts, untraced=True)
    alive = {name: mask[name] for name in mask}
    dead = {group.name: _dead(group, network.norms.get(group.name), alive) for group in network.groups if group.slices}
    gone = network.removable(network.spread(dead, silencing=False))
    passing = _idle(model, probe, {name for name, own in alive.items() if not own.any()}) if bypass else ()
    kept: dict[str, Kept] = {}
    for group in network.groups:
        if group.name.endswith(INPUTS):
            continue
        entering = gone.get(group.name + INPUTS)
        if gone[group.name].any() or (entering is not None and entering.any()):
            outputs = numbers_of(~gone[group.name])
            kept[group.name] = Kept(None if entering is None else numbers_of(~entering), outputs)
            if group.name in network.norms:
                kept[network.norms[group.name]] = Kept(None, outputs)
    kept = {name: own for name, own in kept.items() if not within(name, passing)}
    axes = axes_of(model, kept)
    left = {name: narrowed(own, axes.get(name, {})) for name, own in alive.items() if not within(name, passing)}
    lost = {name: at for name, at in network.lost.items() if (dead[name] & ~gone[name]).any()}
    lost = {name: at for name, at in lost.items() if not within(name, passing)}
    return Plan(kept, passing, Mask.of({name: own for name, own in left.items() if not own.all()}), lost)


def _idle(model: nn.Module, probe: Probe, dead: Collection[str]) -> tuple[str, ...]:
    """Blocks of which every parameter of the layers that give their branch is dead."""
    found = [
        block.name
        for block in (residual_blocks(model, probe) if dead else ())
        if block.gives and all(f"{layer}.{part}" in dead for layer, part in block.gives)
    ]
    return tuple(name for name in found if not within(name, found))


def _dead(group: UnitGroup, norm: str | None, alive: Mapping[str, Tensor]) -> Tensor:
    """Units of which no element is alive; of those that a norm follows, no element of the norm."""
    living = torch.zeros(group.size, dtype=torch.bool)
    own = [part for part in group.slices if norm and part.parameter.startswith(f"{norm}.")]
    for part in own or group.slices:
        if part.parameter not in alive:
            return torch.zeros(group.size, dtype=torch.bool)
        living |= part.totals(alive[part.parameter].float(), group.size) > 0
    return ~living
