"""The wiring of a network, from calls in which its channels are followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from tombola.doors import DoorError
from tombola.errors import TombolaError
from tombola.structure.channel_map import ChannelMap
from tombola.structure.declared_parts import Part, axis_groups
from tombola.structure.graph import Probe, traced
from tombola.structure.layers import (
    NORMS,
    TRANSPOSED,
    channels,
    entering,
    entering_slices,
    has_inputs,
    inputs,
    is_depthwise,
    is_known,
    is_producer,
    leaving_slices,
    normed_together,
    scale_axis,
    shared,
)
from tombola.structure.links import Links
from tombola.structure.marks import Marks, along
from tombola.structure.units import Slice, UnitGroup
from tombola.structure.wiring import INPUTS, PINNED, Wiring
from tombola.structure.wiring_draft import WiringDraft
from tombola.tickets import joined, modules_of
from tombola.tickets.torch_private import own_buffers, own_parameters


def wiring_of(model: nn.Module, probe: Probe, parts: Sequence[Part] = (), *, untraced: bool = False) -> Wiring:
    """All channels of a network and what each feeds, from calls on an example.

    A convolution or linear layer has a group of its outputs, which includes the norm that only follows it, and a group
    `<name> inputs`. Other norms, depthwise convolutions and parameters that scale channels have one group, modules that
    move channels two.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.
        parts: parts whose units are known by names; where the trace cannot follow their channels, the parts count.
        untraced: whether the parts alone will do if the network cannot be traced.

    Raises:
        TombolaError: if the network cannot be traced.
    """
    try:
        draft = _read(model, probe)
    except DoorError:
        raise
    except TombolaError:
        if not (untraced and parts):
            raise
        draft = WiringDraft()
    for part in parts:
        _add_part(draft, part, model)
    return draft.done()


def _add_part(draft: WiringDraft, part: Part, model: nn.Module) -> None:
    """Add the axes of a part that the trace does not know; each of its units can only be cut as a whole."""
    axes = list(axis_groups(part, model))
    *makers, taker, outputs = [group.name for group, _ in axes]
    if all(name in draft.spans for name in (*makers, taker)) and not draft.held(makers):
        return
    known = [name for name in (*makers, taker) if name in draft.spans]
    draft.release([name for name in known if name != taker], [taker] if taker in known else [])
    for group, norm in axes:
        draft.put(group)
        if norm is not None:
            draft.norms[group.name] = norm
    spans = [draft.spans[name] for name in (*makers, taker)]
    first = spans[0].start
    for span in spans:
        draft.tie([(first + place - place % part.width, channel) for place, channel in enumerate(span)])
    draft.flow(zip(spans[-2], spans[-1], strict=True))
    if outputs not in known and outputs not in draft.traced:
        draft.connect_to_pinned(draft.spans[outputs])


@dataclass(frozen=True, eq=False)
class _Layers:
    """The layers, norms and scales of a network whose channels can be numbered.

    Args:
        modules: the modules by their names.
        scales: parameters that no layer holds, with one element a channel, by their names; and their axes.
        spans: the numbers of the channels of each group.
    """

    modules: Mapping[str, nn.Module]
    scales: Mapping[str, int]
    spans: Mapping[str, range]

    @staticmethod
    def of(model: nn.Module) -> _Layers:
        every, elsewhere = modules_of(model), shared(model)
        known = {name: module for name, module in every.items() if name not in elsewhere and is_known(module)}
        scales = {
            joined(name, own): axis
            for name, module in every.items()
            if name not in elsewhere and type(module).__module__.partition(".")[0] != "torch" and name not in known
            for own, parameter in own_parameters(module).items()
            if parameter is not None and (axis := scale_axis(parameter)) is not None
        }
        sizes: dict[str, int] = {}
        for name, module in known.items():
            if isinstance(module, ChannelMap):
                sizes |= {entering(name): module.inputs, name: len(module.sources)}
                continue
            if has_inputs(module):
                sizes[entering(name)] = inputs(module)
            sizes[name] = channels(module)
        sizes |= {name: max(_parameter(every, name).shape) for name in scales}
        spans, start = {}, 1
        for name, size in sizes.items():
            spans[name] = range(start, start + size)
            start += size
        return _Layers(known, scales, spans)

    def marks_of(self, twin: nn.Module) -> dict[int, Marks]:
        """The marks of a copy's parameters and buffers."""
        found, every = {}, modules_of(twin)
        for name in self.modules:
            module = every[name]
            if isinstance(module, ChannelMap):
                continue
            leaving = np.array(self.spans[name])
            for own, tensor in {**own_parameters(module), **own_buffers(module)}.items():
                if tensor is None or not tensor.ndim:
                    continue
                if own != "weight" or not is_producer(module):
                    if tensor.shape == leaving.shape:
                        found[id(tensor)] = Marks((leaving,), origin=name, scales=isinstance(module, nn.PReLU))
                    continue
                axis = int(isinstance(module, TRANSPOSED))
                found[id(tensor)] = Marks(
                    (along(leaving, axis, tensor.ndim),), takes=self._taken(name, module, tensor), origin=name
                )
        for name, axis in self.scales.items():
            tensor = _parameter(every, name)
            found[id(tensor)] = Marks((along(np.array(self.spans[name]), axis, tensor.ndim),), origin=name, scales=True)
        return found

    def _taken(self, name: str, module: nn.Module, weight: Tensor) -> np.ndarray:
        """The channels with which each element of a weight is multiplied."""
        if is_depthwise(module):
            return along(np.array(self.spans[name]), 0, weight.ndim)
        taken = np.array(self.spans[entering(name)])
        if isinstance(module, TRANSPOSED):
            return along(taken, 0, weight.ndim)
        groups = getattr(module, "groups", 1)
        if groups == 1:
            return along(taken, 1, weight.ndim)
        by_group = taken.reshape(groups, -1).repeat(len(weight) // groups, 0)
        return by_group.reshape(*by_group.shape, *[1] * (weight.ndim - 2))

    def ties(self) -> Iterator[np.ndarray]:
        """The channels of a layer or norm that can only be cut together, whatever the network does with them."""
        for name, module in self.modules.items():
            if isinstance(module, ChannelMap):
                continue
            own = np.array(self.spans[name])
            size = normed_together(module)
            if size > 1:
                yield np.stack([own.reshape(-1, size)[:, :1].repeat(size, 1).ravel(), own])
            groups = getattr(module, "groups", 1)
            if has_inputs(module) and groups > 1:
                # Of a grouped convolution, a group's outputs and inputs can only be cut together.
                first = own.reshape(groups, -1)[:, 0]
                for span in (own, np.array(self.spans[entering(name)])):
                    yield np.stack([first.repeat(len(span) // groups), span])


def _parameter(modules: Mapping[str, nn.Module], name: str) -> Tensor:
    owner, _, own = name.rpartition(".")
    parameter = own_parameters(modules[owner])[own]
    assert parameter is not None
    return parameter


def _read(model: nn.Module, probe: Probe) -> WiringDraft:
    layers = _Layers.of(model)
    every = modules_of(model)
    weighted = [name for name, module in every.items() if is_producer(module) or isinstance(module, NORMS)]
    links = traced(model, probe, layers.marks_of, layers.spans, weighted)
    for name, module in layers.modules.items():
        if isinstance(module, ChannelMap):
            before, after = layers.spans[entering(name)], layers.spans[name]
            links.flows += [
                np.array([[before[s], to] for s, to in zip(module.sources, after, strict=True) if s is not None], int)
                .reshape(-1, 2)
                .T
            ]
    links.ties += list(layers.ties())
    for name in weighted:
        if name not in links.met:
            _hold_readable(every[name], layers, links)
    return _Assembly(model, layers, links).draft()


def _hold_readable(unseen: nn.Module, layers: _Layers, links: Links) -> None:
    """Keep whole what a layer that no call shows may read: whatever has as many channels as it takes."""
    size = inputs(unseen) if is_producer(unseen) else channels(unseen)
    for name, span in layers.spans.items():
        flat = (
            isinstance(unseen, nn.Linear)
            and size % len(span) == 0
            and round((size // len(span)) ** 0.5) ** 2 * len(span) == size
        )
        if not name.endswith(INPUTS) and (len(span) == size or flat):
            links.pin(Marks((np.array(span),)), f"'{type(unseen).__name__}', which is not called")


class _Assembly:
    """Groups, norms and pairs of channels from what the calls have shown."""

    def __init__(self, model: nn.Module, layers: _Layers, links: Links) -> None:
        self.layers, self.links = layers, links
        self.modules = modules_of(model)
        total = 1 + sum(len(span) for span in layers.spans.values())
        self.names = ["", *layers.spans]
        self.owner = np.zeros(total, int)
        for number, span in enumerate(layers.spans.values(), 1):
            self.owner[span.start : span.stop] = number
        self.flows, self.uses, self.ties = (_unique(pairs, total) for pairs in (links.flows, links.uses, links.ties))
        targets = self._owners(np.concatenate([self.flows, self.uses], 1))
        sources = self._owners(np.concatenate([self.flows, self.uses], 1)[::-1])
        self.norms = {}
        for norm, before in links.follows.items():
            layer = before[0]
            follows = len(before) == 1 and is_producer(layers.modules.get(layer))
            if follows and targets.get(layer) == {norm} and sources.get(norm) == {layer}:
                self.norms[layer] = norm
        self.targets, self.held = targets, self._held()

    def _owners(self, pairs: np.ndarray) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for first, second in np.unique(self.owner[pairs], axis=1).T:
            found.setdefault(self.names[first], set()).add(self.names[second])
        return found

    def draft(self) -> WiringDraft:
        """The wiring that they make."""
        draft = WiringDraft()
        number = np.full(len(self.owner), PINNED)
        followers = {norm: layer for layer, norm in self.norms.items()}
        reasons, outputs = self._reasons(), self._pinned("")
        for name, span in self.layers.spans.items():
            if name in followers or name.removesuffix(INPUTS) not in self.links.met or self._is_idle(name):
                continue
            gives = name in outputs or name not in reasons
            group = self._group(name, gives)
            draft.add(group)
            number[span.start : span.stop] = draft.spans[name]
        for norm, layer in followers.items():
            span = self.layers.spans[norm]
            number[span.start : span.stop] = draft.spans[layer]
        draft.norms = dict(self.norms)
        for name, pairs in (("flows", self.flows), ("uses", self.uses), ("ties", self.ties)):
            pairs = number[pairs]
            setattr(draft, name, [pairs[:, pairs[0] != pairs[1]]])
        draft.lost = {name: why for name, why in reasons.items() if name in draft.spans}
        draft.traced = set(draft.spans)
        return draft

    def _reasons(self) -> dict[str, str]:
        """Why the outputs of layers cannot be cut."""
        whys = dict.fromkeys(why for _, why in self.links.pinned if why)
        return {name: why for why in whys for name in self._pinned(why)}

    def _pinned(self, why: str) -> set[str]:
        """The layers whose outputs are pinned for a reason."""
        followers = {norm: layer for layer, norm in self.norms.items()}
        taken = [channels for channels, reason in self.links.pinned if reason == why]
        owners = np.unique(self.owner[np.concatenate(taken)]) if taken else ()
        names = (self.names[owner] for owner in owners)
        return {followers.get(name, name) for name in names if not name.endswith(INPUTS)}

    def _is_held(self, name: str) -> bool:
        """Whether all of these channels, along the last of several axes, are tied to what always lives."""
        span, plain = self.layers.spans[name], name.removesuffix(INPUTS)
        along_last = isinstance(self.modules.get(plain), nn.Linear | nn.LayerNorm) and plain in self.links.deep
        return along_last and bool(self.held[span.start : span.stop].all())

    def _held(self) -> np.ndarray:
        """Whether a channel is tied to what always lives."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        size = len(self.owner)
        graph = coo_array((np.ones(self.ties.shape[1], bool), tuple(self.ties)), shape=(size, size))
        component = connected_components(graph, directed=False)[1]
        return component == component[PINNED]

    def _is_idle(self, name: str) -> bool:
        """Whether these are channels along the last of several axes, none of which can ever be cut, as a transformer's.

        A layer's outputs are listed where its inputs can be cut.
        """
        before = entering(name.removesuffix(INPUTS))
        return self._is_held(name) and (before not in self.layers.spans or self._is_held(before))

    def _group(self, name: str, gives: bool) -> UnitGroup:
        size = len(self.layers.spans[name])
        if name in self.layers.scales:
            places = tuple((channel,) for channel in range(size))
            return UnitGroup(name, size, (Slice(name, self.layers.scales[name], places, scored=False),))
        plain = name.removesuffix(INPUTS)
        module = self.modules[plain]
        if isinstance(module, ChannelMap):
            return UnitGroup(name, size, ())
        if name.endswith(INPUTS):
            return UnitGroup(name, size, tuple(entering_slices(plain, module)))
        after = self.norms.get(name, "")
        is_output = gives and self.targets.get(after or name, {""}) <= {""}
        scored = not (is_depthwise(module) or is_output or self._is_held(name))
        slices = leaving_slices(name, module, scored=scored)
        if after:
            slices += leaving_slices(after, self.modules[after], scored=not is_output)
        return UnitGroup(name, size, tuple(slices))


def _unique(pairs: list[np.ndarray], total: int) -> np.ndarray:
    """The pairs in one array, each once."""
    if not pairs:
        return np.zeros((2, 0), int)
    joined_pairs = np.concatenate(pairs, 1).astype(np.int64)
    codes = np.unique(joined_pairs[0] * total + joined_pairs[1])
    return np.stack([codes // total, codes % total])
