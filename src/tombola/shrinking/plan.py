"""Works out from a mask which channels and blocks can be cut out of a network."""

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
    """What to cut out of a network.

    Args:
        kept: the channels that stay, by the name of each layer that becomes smaller.
        idle: names of residual blocks with a dead branch, which are cut out whole.
        mask: the dead weights that remain in the smaller network.
        lost: layers with dead channels that stay because of an operation through which they cannot be cut, and this
            operation.
        left: the share of the weights of dead channels that stays with those layers.
    """

    kept: Mapping[str, Kept]
    idle: tuple[str, ...]
    mask: Mask
    lost: Mapping[str, str] = field(default_factory=dict)
    left: float = 0.0


def plan(model: nn.Module, mask: Mask, probe: Probe, parts: Sequence[Part] = (), *, bypass: bool = True) -> Plan:
    """Find the channels of which a mask keeps nothing, and those that then feed nothing.

    Channels that share an axis, as those of a residual stream, can go only if all of them are dead.

    Args:
        model: the masked network.
        mask: the mask.
        probe: calls the model on an example.
        parts: heads and hidden neurons, which can be cut even where the trace does not reach.
        bypass: whether to cut out residual blocks whose branch is dead.

    Returns:
        The plan.
    """
    parameters = parameters_of(model)
    check_fits(mask, parameters)
    wiring = wiring_of(model, probe, parts, untraced=True)
    alive = {name: mask[name] for name in mask}
    dead = {group.name: _dead(group, wiring.norms.get(group.name), alive) for group in wiring.groups if group.slices}
    removed = wiring.removable(wiring.spread(dead, silencing=False))
    idle = _idle_blocks(model, probe, {name for name, weights in alive.items() if not weights.any()}) if bypass else ()
    kept: dict[str, Kept] = {}
    for group in wiring.groups:
        if group.name.endswith(INPUTS):
            continue
        removed_inputs = removed.get(group.name + INPUTS)
        if removed[group.name].any() or (removed_inputs is not None and removed_inputs.any()):
            outputs = numbers_of(~removed[group.name])
            kept[group.name] = Kept(None if removed_inputs is None else numbers_of(~removed_inputs), outputs)
            if group.name in wiring.norms:
                kept[wiring.norms[group.name]] = Kept(None, outputs)
    kept = {name: channels for name, channels in kept.items() if not within(name, idle)}
    axes = axes_of(model, kept)
    masks = {name: narrowed(weights, axes.get(name, {})) for name, weights in alive.items() if not within(name, idle)}
    stays = {g.name: (dead[g.name] & ~removed[g.name]).sum() * _size(g, parameters) for g in wiring.groups if g.slices}
    lost = {name: why for name, why in wiring.lost.items() if stays.get(name) and not within(name, idle)}
    every = sum(dead[group.name].sum() * _size(group, parameters) for group in wiring.groups if group.slices)
    left = float(sum(stays[name] for name in lost) / every) if lost else 0.0
    masks = {name: weights for name, weights in masks.items() if not weights.all()}
    return Plan(kept, idle, Mask.of(masks), lost, left)


def _size(group: UnitGroup, parameters: Mapping[str, Tensor]) -> float:
    """How many weights a channel of a group has."""
    return sum(parameters[part.parameter].numel() for part in group.slices) / group.size


def _idle_blocks(model: nn.Module, probe: Probe, dead: Collection[str]) -> tuple[str, ...]:
    """The outermost blocks whose branch ends in layers with dead parameters only."""
    idle = [
        block.name
        for block in (residual_blocks(model, probe) if dead else ())
        if block.gives and all(f"{layer}.{part}" in dead for layer, part in block.gives)
    ]
    return tuple(name for name in idle if not within(name, idle))


def _dead(group: UnitGroup, norm: str | None, alive: Mapping[str, Tensor]) -> Tensor:
    """True for each unit without a living element. If a norm follows, only its elements count."""
    has_living = torch.zeros(group.size, dtype=torch.bool)
    # A norm with γ = β = 0 gives 0 whatever enters; one with β ≠ 0 gives a constant even where nothing enters.
    of_norm = [part for part in group.slices if norm and part.parameter.startswith(f"{norm}.")]
    for part in of_norm or group.slices:
        if part.parameter not in alive:
            return torch.zeros(group.size, dtype=torch.bool)
        has_living |= part.totals(alive[part.parameter].float(), group.size) > 0
    return ~has_living
