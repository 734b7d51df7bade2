"""Groups, norms and pairs of channels, from what the calls of a network have shown."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from tombola.structure.channel_map import moves_channels
from tombola.structure.layers import (
    entering,
    entering_slices,
    is_depthwise,
    is_divisible,
    is_linear,
    is_norm_of_all,
    is_producer,
    leaving_slices,
)
from tombola.structure.links import Links
from tombola.structure.numbered_layers import NumberedLayers
from tombola.structure.recurrent_layers import STATE, hidden_slices, is_recurrent, least_units
from tombola.structure.units import Slice, UnitGroup, one_each
from tombola.structure.wiring import INPUTS, PINNED
from tombola.structure.wiring_draft import WiringDraft
from tombola.tickets import modules_of


class Assembly:
    """Groups, norms and pairs of channels from what the calls have shown."""

    def __init__(self, model: nn.Module, layers: NumberedLayers, links: Links) -> None:
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
        for first, second in _unique([self.owner[pairs]], len(self.owner)).T.tolist():
            found.setdefault(self.names[first], set()).add(self.names[second])
        return found

    @property
    def is_sized(self) -> bool:
        """Whether the code gives a shape with the number of channels that could be cut."""
        return not all(self.held[channels].all() for channels in self.links.sized)

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
        draft.least = {name: own for name in draft.spans if (own := least_units(self.modules.get(name))) > 1}
        for name, pairs in (("flows", self.flows), ("uses", self.uses), ("ties", self.ties)):
            pairs = number[pairs]
            setattr(draft, name, [pairs[:, pairs[0] != pairs[1]]])
        draft.lost = {name: why for name, why in reasons.items() if name in draft.spans}
        draft.unlisted = {name: why for name, why in reasons.items() if name not in draft.spans}
        divisible: dict[str, Any] = {name: own for name, own in self.layers.modules.items() if is_divisible(own)}
        draft.grouped = {name: module.groups for name, module in divisible.items() if name in draft.spans}
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
        module = self.modules.get(plain)
        deep = plain in self.links.deep and (is_linear(module) or is_norm_of_all(module))
        along_last = deep or self.layers.scales.get(name, 0) > 0
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
            return UnitGroup(name, size, (Slice(name, self.layers.scales[name], one_each(size), scored=False),))
        plain = name.removesuffix(INPUTS)
        if plain not in self.modules:
            layer = plain.removesuffix(STATE)
            return UnitGroup(name, size, tuple(hidden_slices(layer, self.modules[layer], "reads")))
        module = self.modules[plain]
        if moves_channels(module):
            return UnitGroup(name, size, ())
        if name.endswith(INPUTS):
            return UnitGroup(name, size, tuple(entering_slices(plain, module)))
        after = self.norms.get(name, "")
        # What gives outputs gives them directly; behind a projection nothing else reads the units than it.
        own = {entering(name + STATE)} if is_recurrent(module) and not getattr(module, "proj_size", 0) else set()
        is_output = gives and self.targets.get(after or name, {""}) - own <= {""}
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
