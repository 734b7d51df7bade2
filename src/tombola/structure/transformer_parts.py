"""Attention heads, hidden neurons and whole feed-forward parts of a transformer, also of several kinds together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import LATER, check_fields
from tombola.structure.graph import Probe
from tombola.structure.output_head import head_parameters
from tombola.structure.part_granularity import best_of_groups, is_protected, parts_of_kind
from tombola.structure.part_search import found_parts
from tombola.structure.placed_parts import PlacedPart
from tombola.structure.units import Slice, UnitGroup, Units, check_scope
from tombola.structure.widths import check_names, check_widths, is_named
from tombola.tickets import Mask, Scope, joined, parameters_of, select

PartKind = Literal["head", "neuron", "mlp"]
MLP = "mlp"
"""The kind, and the name of the group that all feed-forward parts of a network make."""


@dataclass(frozen=True)
class TransformerParts:
    """Units of one or more kinds inside a transformer; those of each kind compete with each other alone.

    Args:
        kinds: `head`, an attention head; `neuron`, a hidden neuron of a feed-forward part; `mlp`, a feed-forward part
            with all its layers, beside which the shortcut and its norm stay (Prasanna et al., EMNLP 2020).
        round_to: what the number of neurons in each part is a multiple of, as 8, where it has as many; of heads, their
            channels together. The network then keeps at most the density.
        protect: names of parts and layers, or patterns, whose units all stay. The density is that of the other units.

    Raises:
        TombolaError: if there is no kind, one is named twice, or neurons are removed beside the parts that hold them.

    Examples:
        >>> TransformerParts(("head", "mlp")).name
        'head+mlp'
    """

    kinds: tuple[PartKind, ...] = ("head", "mlp")
    round_to: int = field(default=1, repr=False, metadata=LATER)
    protect: tuple[str, ...] = field(default=(), repr=False, metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self)
        check_widths(self.round_to, self.protect)
        if not self.kinds or len(set(self.kinds)) < len(self.kinds) or {"neuron", "mlp"} <= set(self.kinds):
            raise TombolaError(
                f"the kinds are {self.kinds}; give head, neuron or mlp, each once, and not neuron together with mlp"
            )

    @property
    def name(self) -> str:
        """What `granularity` calls it."""
        return "+".join(self.kinds)

    def check(self, density: float, scope: Scope) -> None:
        """TombolaError for a scope that shares weights."""
        check_scope(self.name, scope)

    def units(self, model: nn.Module, probe: Probe) -> TransformerUnits:
        """The units of a network, without those of its head; TombolaError if it has none of a kind."""
        check_names(self.protect, model)
        parameters, head = parameters_of(model), head_parameters(model)
        found = found_parts(model, probe)
        groups: list[UnitGroup] = []
        gates: list[UnitGroup] = []
        kinds: dict[PartKind, tuple[str, ...]] = {}
        for kind in self.kinds:
            of_kind = parts_of_kind(model, probe, "neuron" if kind == MLP else kind, found)
            parts = [part for part in of_kind if joined(part.name, "weight") not in head]
            if not parts:
                raise TombolaError(f"the network has no {kind} before its head; prune weights or blocks instead")
            own = [_whole(parts, parameters)] if kind == MLP else [part.group(parameters) for part in parts]
            gates += [_readers(parts, parameters)] if kind == MLP else [_columns(part, parameters) for part in parts]
            groups += own
            kinds[kind] = tuple(group.name for group in own)
        return TransformerUnits(
            tuple(groups), kinds=kinds, gates=Units(tuple(gates)), round_to=self.round_to, protect=self.protect
        )


@dataclass(frozen=True)
class TransformerUnits(Units):
    """The units of one transformer.

    Args:
        kinds: the names of each kind's groups. All feed-forward parts make one group.
        gates: the same units, each with the weights alone by which the network reads it. To multiply these by a number
            is to put a gate behind the unit: of a head, on what it gives to the layer that mixes the heads; of a
            feed-forward part, on what it adds to the stream, bias included.
        round_to, protect: see `TransformerParts`.
    """

    kinds: Mapping[PartKind, tuple[str, ...]] = field(default_factory=dict)
    gates: Units = field(default_factory=lambda: Units(()))
    round_to: int = 1
    protect: tuple[str, ...] = ()

    def choose(
        self, scores: Mapping[str, Tensor], density: float | None, *, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        """The kept units: the same share of each kind. Arguments as of `tombola.select`; a part never loses all heads
        or all neurons, while all feed-forward parts may go whole.
        """
        return self._chosen(self.reduce(scores), density, scope, within, floor)

    def _chosen(
        self, worth: Mapping[str, Tensor], density: float | None, scope: Scope, within: Mask | None, floor: int
    ) -> Mask:
        kept: dict[str, Tensor] = {}
        ties = 0
        protected = {group.name for group in self.groups if is_protected(group, self.protect)}
        for kind, names in self.kinds.items():
            own = {name: worth[name] for name in names if name in worth}
            if not own or (kind != MLP and own.keys() <= protected):
                continue
            inside = None if within is None else Mask.of({name: within[name] for name in own})
            shares = {name: scope[name] for name in own} if isinstance(scope, Mapping) else scope
            how: dict[str, Any] = {"density": density, "scope": shares, "within": inside, "floor": floor}
            chosen = (
                self._whole_parts(own, **how)
                if kind == MLP
                else best_of_groups(own, self.groups, round_to=self.round_to, protect=self.protect, **how)
            )
            kept |= dict(chosen)
            ties += chosen.ties
        if not kept:
            raise TombolaError("all that could be removed is protected; protect fewer layers")
        return Mask.of(kept, ties)

    def _whole_parts(self, worth: Mapping[str, Tensor], **how: Any) -> Mask:
        """Which feed-forward parts stay; those that are protected always do."""
        (group,) = (group for group in self.groups if group.name == MLP)
        stays = [
            any(own.positions[unit] and is_named(own.parameter, self.protect) for own in group.slices)
            for unit in range(group.size)
        ]
        own = worth[MLP].masked_fill(torch.tensor(stays, device=worth[MLP].device), float("inf"))
        how["floor"] = max(how["floor"], sum(stays))
        return select({MLP: own}, **how)


def _parts(parts: Sequence[PlacedPart], parameters: Mapping[str, Tensor], own: str) -> Iterator[tuple[int, str]]:
    """The tensors of each part, with its number."""
    for number, part in enumerate(parts):
        bias = joined(part.name, "bias")
        names = [place.tensor for place in part.places if own == "all" or place.role == "takes"]
        for name in dict.fromkeys([*names, bias]):
            if name in parameters:
                yield number, name


def _together(parts: Sequence[PlacedPart], parameters: Mapping[str, Tensor], own: str) -> UnitGroup:
    """One group whose units are the parts, each with whole tensors."""

    def positions(owner: int, size: int) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(range(size)) if number == owner else () for number in range(len(parts)))

    slices = [
        Slice(name, 0, positions(number, len(parameters[name]))) for number, name in _parts(parts, parameters, own)
    ]
    return UnitGroup(MLP, len(parts), tuple(slices))


def _whole(parts: Sequence[PlacedPart], parameters: Mapping[str, Tensor]) -> UnitGroup:
    """The feed-forward parts with all their layers."""
    return _together(parts, parameters, "all")


def _readers(parts: Sequence[PlacedPart], parameters: Mapping[str, Tensor]) -> UnitGroup:
    """The feed-forward parts with the layer that ends each."""
    return _together(parts, parameters, "takes")


def _columns(part: PlacedPart, parameters: Mapping[str, Tensor]) -> UnitGroup:
    """The units of a part with what reads them."""
    slices = (
        Slice(place.tensor, place.dim, tuple(place.positions(unit, part.size) for unit in range(part.size)))
        for place in part.places
        if place.role == "takes" and place.tensor in parameters
    )
    return UnitGroup(part.name, part.size, tuple(slices))
