"""Works out from a mask which channels and blocks can be cut out of a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from tombola.doors import DoorError
from tombola.errors import TombolaError
from tombola.shrinking.cutting import axes_of, within
from tombola.shrinking.silent_layers import Silence, silences
from tombola.structure import (
    EMPTY,
    Axes,
    FoundParts,
    Kept,
    Passing,
    PlacedPart,
    Probe,
    Removed,
    UnitGroup,
    Wiring,
    kept_channels,
    narrowed,
    norm_form,
    passings,
    residual_blocks,
    wiring_of,
)
from tombola.tickets import Mask, buffers_of, check_fits, joined, modules_of, parameters_of

NONE = FoundParts(())
"""No heads, hidden neurons or declared channels."""


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
        parts: all parts of the network, each with its heads or other units that are cut out.
        passes: how idle blocks are called that take or give more than one tensor.
        uncut: heads or other units that are removed but cannot be cut out, and why.
        silent: feed-forward parts of which no hidden neuron is left, and which are cut out whole.
    """

    kept: Mapping[str, Kept]
    idle: tuple[str, ...]
    mask: Mask
    lost: Mapping[str, str] = field(default_factory=dict)
    left: float = 0.0
    parts: Removed = ()
    uncut: tuple[str, ...] = ()
    passes: Mapping[str, Passing] = field(default_factory=dict)
    silent: tuple[Silence, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is cut out."""
        return not (self.kept or self.idle or self.silent or any(units for _, units in self.parts))

    def axes(self, model: nn.Module) -> dict[str, Axes]:
        """The positions that stay in each tensor that becomes smaller; model: the whole network."""
        return axes_of(model, self.kept, self.parts)


def plan(
    model: nn.Module,
    mask: Mask,
    probe: Probe,
    find: Callable[[], FoundParts] = lambda: NONE,
    *,
    bypass: bool = True,
    wiring: Wiring | None = None,
) -> Plan:
    """Find the channels of which a mask keeps nothing, and those that then feed nothing.

    Channels that share an axis, as those of a residual stream, can go only if all of them are dead.

    Args:
        model: the network, masked or not.
        mask: the mask.
        probe: calls the model on an example.
        find: finds heads, hidden neurons and declared channels, which can be cut even where the trace does not reach;
            only called if something dead is left after what the trace cuts.
        bypass: whether to cut out residual blocks whose branch is dead, and feed-forward parts without neurons.
        wiring: which channels feed which, if that is known, as of an earlier mask of the network.

    Returns:
        The plan.
    """
    parameters = parameters_of(model)
    check_fits(mask, parameters)
    wiring = wiring or known_wiring(model, probe, find, streams=cuts_streams(model, mask))
    alive = {name: mask[name] for name in mask}
    dead = {group.name: _dead(group, wiring.norms.get(group.name), alive) for group in wiring.groups if group.slices}
    removed = wiring.removable(wiring.spread(dead, silencing=False))
    idle = _idle_blocks(model, probe, mask.collapsed) if bypass else ()
    kept = kept_channels(wiring, removed)
    kept = {name: channels for name, channels in kept.items() if not within(name, idle)}
    alive = {name: weights for name, weights in alive.items() if not within(name, idle)}
    masks, found = _left(alive, axes_of(model, kept)), NONE
    parts: Removed = ()
    silent: tuple[Silence, ...] = ()
    if masks:
        found = find()
        silent = silences(model, found.parts, alive, idle) if bypass else ()
        parts = _removed_units(model, kept, alive, found, idle)
        masks = _left(alive, axes_of(model, kept, parts))
        gone = {name for part in silent for name in part.tensors}
        masks = {name: weights for name, weights in masks.items() if name not in gone}
    cut = {(place.tensor, place.dim) for part, units in parts if units for place in part.places}
    stays = {
        group.name: (dead[group.name] & ~removed[group.name]).sum() * _size(group, parameters)
        for group in wiring.groups
        if group.slices and not any((own.parameter, own.dim) in cut for own in group.slices)
    }
    quiet = {name for part in silent for name in (*part.makes, part.takes)}
    lost = {
        name: why
        for name, why in wiring.lost.items()
        if stays.get(name) and name not in quiet and not within(name, idle)
    }
    every = sum(dead[group.name].sum() * _size(group, parameters) for group in wiring.groups if group.slices)
    left = float(sum(stays[name] for name in lost) / every) if lost else 0.0
    uncut = tuple(
        f"{part.kind}s {why}" for part, why in found.refused if part.dead(alive) and not within(part.name, idle)
    )
    return Plan(kept, idle, Mask.of(masks), lost, left, parts, uncut, passings(model, mask, probe, idle), silent)


def _left(alive: Mapping[str, Tensor], axes: Mapping[str, Axes]) -> dict[str, Tensor]:
    """The parts of a mask that the smaller tensors keep, where something in them is dead."""
    parts = {name: narrowed(weights, axes.get(name, {})) for name, weights in alive.items()}
    return {name: weights for name, weights in parts.items() if not weights.numpy().all()}


def _size(group: UnitGroup, parameters: Mapping[str, Tensor]) -> float:
    """How many weights a channel of a group has."""
    return sum(parameters[part.parameter].numel() for part in group.slices) / group.size


def cuts_streams(model: nn.Module, mask: Mask) -> bool:
    """Whether a mask removes channels of a stream under layer or RMS norms: with them go the norms' scales."""
    scales = (joined(name, "weight") for name, module in modules_of(model).items() if norm_form(module) is not None)
    return any(name in mask and not bool(mask[name].all()) for name in scales)


def known_wiring(model: nn.Module, probe: Probe, find: Callable[[], FoundParts], *, streams: bool = False) -> Wiring:
    """The wiring of a network; without channels if the network cannot be traced, but has parts."""
    try:
        return wiring_of(model, probe, streams=streams)
    except DoorError:
        raise
    except TombolaError:
        if not find().parts:
            raise
        return EMPTY


def _removed_units(
    model: nn.Module, kept: Mapping[str, Kept], alive: Mapping[str, Tensor], found: FoundParts, idle: Collection[str]
) -> Removed:
    """All parts outside idle blocks, with the dead units that can be cut out: not all of a part."""
    tensors = parameters_of(model) | buffers_of(model)
    taken = {
        (name, dim)
        for name, axes in axes_of(model, kept).items()
        for dim, positions in axes.items()
        if len(positions) < tensors[name].shape[dim]
    }
    parts = []
    for part in (part_outside(part, idle) for part in found.parts):
        if not part.places:
            continue
        # Where the trace has cut already, it has cut all that it could.
        units = () if any((own.tensor, own.dim) in taken for own in part.places) else part.dead(alive)
        parts.append((part, units if len(units) < part.size else units[1:]))
    return tuple(parts)


def part_outside(part: PlacedPart, idle: Collection[str]) -> PlacedPart:
    """A part without what is in idle blocks.

    Args:
        part: the part.
        idle: the names of the blocks.
    """
    places = tuple(place for place in part.places if not within(place.tensor, idle))
    counts = tuple(count for count in part.counts if not within(f"{count.module}.", idle))
    freed = tuple(name for name in part.freed if not within(f"{name}.", idle))
    return part if places == part.places else replace(part, places=places, counts=counts, freed=freed)


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
        has_living |= part.living(alive[part.parameter], group.size)
    return ~has_living
