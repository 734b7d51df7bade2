"""The heads, hidden neurons and declared channels of a network: found by their layouts, proved on an example."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from tombola.structure.declared_parts import Kind, Part, declared_parts
from tombola.structure.free_attention import WIDTH
from tombola.structure.graph import Probe
from tombola.structure.head_layouts import head_candidates
from tombola.structure.head_names import FIELDS as HEAD_FIELDS
from tombola.structure.head_names import GROUPS, HEADS, QUERIES, TOTALS, WIDTHS
from tombola.structure.head_names import SIDES as HEAD_SIDES
from tombola.structure.layers import NORMS, leaving_slices, shared
from tombola.structure.mixing_layers import MixingLayer, sizes_of
from tombola.structure.neuron_layouts import FIELDS as HIDDEN_FIELDS
from tombola.structure.neuron_layouts import SIDES as HIDDEN_SIDES
from tombola.structure.neuron_layouts import WIDTHS as HIDDEN_WIDTHS
from tombola.structure.neuron_layouts import neuron_candidates
from tombola.structure.part_trials import Trials, trials
from tombola.structure.placed_parts import Count, Place, PlacedPart
from tombola.tickets import joined, modules_of

Candidates = Callable[[Mapping[str, nn.Module], str, Mapping[str, int]], Iterator[tuple[PlacedPart, bool]]]
KINDS: tuple[tuple[Kind, Candidates], ...] = (("head", head_candidates), ("neuron", neuron_candidates))


@dataclass(frozen=True)
class FoundParts:
    """The parts of a network.

    Args:
        parts: those whose units can be cut, in the network's order.
        refused: what looks like such a part, and why its units cannot be cut.
    """

    parts: tuple[PlacedPart, ...]
    refused: tuple[tuple[PlacedPart, str], ...] = ()

    def of(self, kind: Kind) -> tuple[PlacedPart, ...]:
        """The parts of a kind."""
        return tuple(part for part in self.parts if part.kind == kind)


def found_parts(model: nn.Module, probe: Probe) -> FoundParts:
    """The parts of a network whose units live and die alone.

    They are those that modules declare, and those that names, attributes and sizes let suppose; each is tried on the
    example: its module with zeros in the places of a unit must give what it gives without them. Without an example, as
    in a search in one's own loop, names alone decide.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.
    """
    return _Search(model, trials(model, probe)).run()


def is_count(attribute: str) -> bool:
    """Whether an attribute, or the field of a configuration, says how many units there are or goes with them."""
    place, _, name = attribute.rpartition(".")
    own = {*HEADS, *GROUPS, *QUERIES, *TOTALS, *WIDTHS, *HIDDEN_WIDTHS, WIDTH}
    fields = {*HEAD_FIELDS, *HEAD_SIDES, *GROUPS, "head_dim", *HIDDEN_FIELDS, *HIDDEN_SIDES}
    return name in (fields if place == "config" else own) and place in ("", "config")


class _Search:
    def __init__(self, model: nn.Module, tried: Trials | None) -> None:
        self.modules, self.trials, self.elsewhere = modules_of(model), tried, shared(model)
        self.parts: list[PlacedPart] = []
        self.claimed: set[tuple[str, int]] = set()
        self.pending: list[tuple[PlacedPart, str, bool]] = []  # the part, why not, whether only something leaks

    def run(self) -> FoundParts:
        for name, parts in declared_parts(self.modules).items():
            for part in parts:
                self._offer([(placed(part, name, self.modules), True)], declared=True)
        for name in reversed(self.modules):  # what is inside a module comes first
            for _, candidates in KINDS:
                self._offer(candidates(self.modules, name, self.trials.order if self.trials else {}))
        self._merge()
        refused: list[tuple[PlacedPart, str]] = []
        for part, reason, leaks in self.pending:
            if not self._is_free(part):
                continue
            reason = self.trials.beyond(part).reason if self.trials and leaks else reason
            if not reason:
                self._accept(part)
            else:
                where = f"'{part.owner}'" if part.owner else "the network"
                refused.append((part, f"of {where} ({type(self.modules[part.owner]).__name__}): {reason}"))
        order = {name: place for place, name in enumerate(self.modules)}
        parts = sorted(self.parts, key=lambda part: order.get(part.name, order.get(part.owner, 0)))
        return FoundParts(tuple(parts), tuple(reversed(refused)))

    def _offer(self, candidates: Iterable[tuple[PlacedPart, bool]], declared: bool = False) -> None:
        """Take the candidates that can be cut, the first of each layer; note why those that names suggest cannot."""
        failed: dict[str, tuple[PlacedPart, str, bool]] = {}
        for part, known in dict.fromkeys(candidates):
            if not self._is_free(part):
                continue
            owned = self.trials.owned(part) if self.trials else part
            if self.trials is None or (declared and owned.owner not in self.trials.order):
                if known:
                    self._accept(part)
                continue
            verdict = self.trials.of(owned)
            if not verdict.reason and not verdict.leaks:
                self._accept(owned)
            elif known and (part.name not in failed or (not verdict.reason and not failed[part.name][2])):
                failed[part.name] = owned, verdict.reason, not verdict.reason
        self.pending += failed.values()

    def _is_free(self, part: PlacedPart) -> bool:
        """Whether all that a part owns belongs to no other, and to one module alone."""
        return not any(
            (place.tensor, place.dim) in self.claimed or place.tensor.rpartition(".")[0] in self.elsewhere
            for place in part.places
        )

    def _accept(self, part: PlacedPart) -> None:
        self.parts.append(part)
        self.claimed |= {(place.tensor, place.dim) for place in part.places if place.role != "beside"}

    def _merge(self) -> None:
        """Attentions that share a table of biases, as those of T5 and MPNet: a head is the same in all of them."""
        groups: dict[tuple[str, int], list[PlacedPart]] = {}
        for part, _, _ in self.pending:
            if part.kind == "head" and self._is_free(part) and not part.freed:
                groups.setdefault((re.sub(r"\d+", "*", part.name), part.size), []).append(part)
        for (_, size), parts in groups.items():
            assert self.trials is not None
            order = self.trials.order
            members = sorted(parts, key=lambda part: order.get(part.name, 0))
            owner = self.trials.owner(place.tensor for part in members for place in part.places)
            heads = {(n, c.attribute) for part in members for c in part.counts for n in [c.module]}
            tables = tuple(self._tables(owner, size))
            more = tuple(
                Count(owner, own, 1)
                for own in HEADS
                if vars(self.modules[owner]).get(own) == size and (owner, own) not in heads
            )
            whole = PlacedPart(
                "head",
                members[0].name,
                size,
                (*(place for part in members for place in part.places), *tables),
                (*(count for part in members for count in part.counts), *more),
                owner=owner,
                layers=tuple(layer for part in members for layer in part.layers),
            )
            verdict = self.trials.of(whole)
            if not verdict.reason and not verdict.leaks:
                self._accept(whole)

    def _tables(self, owner: str, size: int) -> Iterator[Place]:
        """Tables with an entry a head that no part has for its own."""
        others = [*self.parts, *(part for part, _, _ in self.pending)]
        known = {place.tensor for part in others for place in part.places}
        for path, module in self.modules[owner].named_modules():
            table = joined(joined(owner, path), "weight")
            of_heads = isinstance(module, nn.Embedding) and module.embedding_dim == size and "bias" in path
            if of_heads and table not in known:
                yield Place(table, 1, role="beside")


def placed(part: Part, owner: str, modules: Mapping[str, Any]) -> PlacedPart:
    """A declared part with the places of its layers, by their names."""
    places: list[Place] = []
    norms = any(isinstance(modules[name], NORMS) for name in part.makes)
    for number, name in enumerate(part.makes):
        role = "value" if number == len(part.makes) - 1 and not norms else "makes"
        for own in leaving_slices(name, modules[name]):
            assert own.dim is not None
            places.append(Place(own.parameter, own.dim, part.width, role=role))
        if isinstance(modules[name], NORMS):
            running = (own for own in ("running_mean", "running_var") if getattr(modules[name], own, None) is not None)
            places += [Place(joined(name, own), 0, part.width, role="beside") for own in running]
    taker = modules[part.takes]
    total = sizes_of(taker)
    if total is not None:
        places.append(MixingLayer(part.takes, taker, *total, {}).columns(part.width))
    size = channels_into(taker) // part.width
    holder, _, _ = part.makes[0].rpartition(".")
    counts = ()
    if part.kind == "head":
        held = vars(modules[holder])
        counts = tuple(Count(holder, own, 1) for own in HEADS if type(held.get(own)) is int and held[own] == size)
        if type(held.get("all_head_size")) is int:
            counts += (Count(holder, "all_head_size", part.width),)
    return PlacedPart(part.kind, part.takes, size, tuple(places), counts, owner=owner, layers=part.makes)


def channels_into(module: Any) -> int:
    """How many channels enter a layer."""
    return module.in_features if hasattr(module, "in_features") else module.in_channels
