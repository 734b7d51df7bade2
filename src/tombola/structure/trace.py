"""The wiring of a network, read from one traced forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tombola.doors import DoorError
from tombola.errors import TombolaError
from tombola.structure.autograd import shape_of, stem_of
from tombola.structure.channel_map import ChannelMap
from tombola.structure.declared_parts import Part, axis_groups
from tombola.structure.graph import Probe, traced
from tombola.structure.layers import (
    NORMS,
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
    shared,
)
from tombola.structure.operations import has_constant, keeps_channels
from tombola.structure.torch_pruning import Operation, TensorPlace
from tombola.structure.units import UnitGroup
from tombola.structure.wiring import PINNED, Wiring
from tombola.structure.wiring_draft import WiringDraft
from tombola.tickets import names_of


def wiring_of(model: nn.Module, probe: Probe, parts: Sequence[Part] = (), *, untraced: bool = False) -> Wiring:
    """Every channel of a network and what it feeds, found by calling it once on an example.

    A producing layer (convolution or linear) has a group of its outputs, with the norm that follows it alone, and a
    group `<name> inputs`; other norms, depthwise convolutions and modules that move channels have one or two of their
    own. parts: units inside it, which are there too where the trace does not reach. Raises TombolaError if the network
    cannot be traced, unless the parts alone will do (untraced).
    """
    try:
        draft = _traced(model, probe)
    except DoorError:
        raise
    except TombolaError:
        if not (untraced and parts):
            raise
        draft = WiringDraft()
    for own in parts:
        _add_inner(draft, own, model)
    return draft.done()


def _traced(model: nn.Module, probe: Probe) -> WiringDraft:
    network, draft = _Traced(model, probe), WiringDraft()
    for node in network.nodes:
        for group in network.groups_of(node):
            draft.add(group)
    for node in network.nodes:
        if (norm := network.end(node)) is not node:
            draft.norms[network.names[node.module]] = network.names[norm.module]
        network.tie(node, draft)
        network.follow(node, draft)
    network.pin(draft)
    return draft


def _add_inner(draft: WiringDraft, inner: Part, model: nn.Module) -> None:
    """The axes of units that the trace does not know, of which each unit can only be cut as a whole."""
    axes = list(axis_groups(inner, model))
    if any(group.name in draft.spans for group, _ in axes):
        return
    for group, norm in axes:
        draft.add(group)
        if norm is not None:
            draft.norms[group.name] = norm
    *made, taken, given = [draft.spans[group.name] for group, _ in axes]
    for span in (*made, taken):
        draft.ties += [(made[0][place - place % inner.width], own) for place, own in enumerate(span)]
    draft.flows += list(zip(made[-1], taken, strict=True))
    draft.connect(given, [PINNED] * len(given))


class _Traced:
    """A twin of the model, and the graph of its operations."""

    def __init__(self, model: nn.Module, probe: Probe) -> None:
        seen = traced(model, probe)
        self.operations = seen.operations
        self.names = names_of(seen.twin)
        self.ends = {tensor.grad_fn for tensor in seen.outputs}
        elsewhere = shared(model)
        own = [
            node
            for module, node in self.operations.items()
            if is_known(module)
            and seen.calls[module] == 1
            and self.names[module] not in elsewhere
            and _is_by_axis_1(node)
        ]
        self._known = set(own)
        self._astray: set[Operation] = set()
        weighted = [module for module in self.names if is_producer(module) or isinstance(module, NORMS)]
        self.blind = seen.untraced or any(module not in self.operations for module in weighted)
        order = {module: place for place, module in enumerate(self.names)}
        self.nodes = sorted((n for n in own if not self._only_follows(n)), key=lambda node: order[node.module])

    def _only_follows(self, node: Operation) -> bool:
        """Whether this is a norm that one producing layer feeds and nothing else, and that layer feeds nothing else."""
        before = node.inputs[0] if len(node.inputs) == 1 else node
        return (
            isinstance(node.module, NORMS)
            and before in self._known
            and is_producer(before.module)
            and len(before.outputs) == 1
            and before.function not in self.ends
            and channels(before.module) == channels(node.module)
        )

    def end(self, node: Operation) -> Operation:
        """The norm that only follows this node, or else the node."""
        after = node.outputs[0] if len(node.outputs) == 1 else node
        return after if after is not node and after in self._known and self._only_follows(after) else node

    def leaves(self, node: Operation) -> bool:
        """Whether the network gives this node's tensor back."""
        return node.function in self.ends or not node.outputs

    def groups_of(self, node: Operation) -> list[UnitGroup]:
        """The channels that enter and leave a layer, or pass through it, with what they own of its parameters."""
        module, end, name = node.module, self.end(node).module, self.names[node.module]
        if isinstance(module, ChannelMap):
            return [UnitGroup(entering(name), module.inputs, ()), UnitGroup(name, len(module.sources), ())]
        given = self.leaves(self.end(node))
        slices = leaving_slices(name, module, scored=not (is_depthwise(module) or given))
        if end is not module:
            slices += leaving_slices(self.names[end], end, scored=not given)
        group = UnitGroup(name, channels(module), tuple(slices))
        if not has_inputs(module):
            return [group]
        return [UnitGroup(entering(name), inputs(module), tuple(entering_slices(name, module))), group]

    def tie(self, node: Operation, draft: WiringDraft) -> None:
        """What within a layer can only be cut together, and what a module that moves channels passes on."""
        module, first = node.module, draft.spans[self.names[node.module]].start
        if isinstance(module, ChannelMap):
            into = draft.spans[entering(self.names[module])].start
            draft.flows += [(into + s, first + to) for to, s in enumerate(module.sources) if s is not None]
            return
        size = max(normed_together(module), normed_together(self.end(node).module))
        draft.ties += [(first + i - i % size, first + i) for i in range(channels(module))]
        if has_inputs(module) and getattr(module, "groups", 1) > 1:
            into = draft.spans[entering(self.names[module])].start
            inside, outside = inputs(module) // module.groups, channels(module) // module.groups
            draft.ties += [(first + i - i % outside, first + i) for i in range(channels(module))]
            draft.ties += [(first + i // inside * outside, into + i) for i in range(inputs(module))]

    def follow(self, node: Operation, draft: WiringDraft) -> None:
        """Connect what leaves a node with every layer, norm or end that it reaches."""
        name, last = self.names[node.module], self.end(node)
        start = draft.spans[name]
        if self.leaves(last):
            draft.connect(start, [PINNED] * len(start))
        going = [(last, [TensorPlace(at, at) for at in range(len(start))], True)]
        seen = set()
        while going:
            here, indices, cuttable = going.pop()
            for step in here.onward:
                there, still = step.follow(indices), cuttable and step.cuttable
                if there is None or self._overrun(step.target, there, draft):
                    self._astray.add(step.target)
                    draft.lost[name] = stem_of(step.target.function)
                    draft.connect(start, [PINNED] * len(start))
                    continue
                if not still:
                    draft.ties += [(PINNED, own) for own in start]
                key = (step.target, tuple(there), still)
                if there and key not in seen:
                    seen.add(key)
                    wide = shape_of(here.function)[1:2]
                    if not self._arrives(step.target, there, start, draft, wide, cuttable=still):
                        going.append((step.target, there, still))

    def pin(self, draft: WiringDraft) -> None:
        """Keep alive whatever is fed by something that is not known; everything if uses may be out of sight.

        What a layer gives may be used without a gradient, or in training only, where layers are not in the graph.
        """
        if self.blind:
            for group in draft.groups:
                draft.connect(draft.spans[group.name], [PINNED] * group.size)
                draft.connect([PINNED] * group.size, draft.spans[group.name])
        self._tell(draft)
        going = [node for node in self.operations.values() if self._is_foreign(node)]
        seen = set(going)
        while going:
            for after in going.pop().outputs:
                target = self._group_at(after, draft)
                if target is not None:
                    draft.connect([PINNED] * len(draft.spans[target]), draft.spans[target])
                elif after not in seen:
                    seen.add(after)
                    going.append(after)

    def _tell(self, draft: WiringDraft) -> None:
        """Note the layers from which channels come to an operation that torch-pruning cannot map."""
        for lost in (node for node in self.operations.values() if node.lost):
            going, seen = [lost], {lost}
            while going:
                for before in going.pop().inputs:
                    if before in self._known:
                        draft.lost.setdefault(self._owner(before), stem_of(lost.function))
                    elif before not in seen:
                        seen.add(before)
                        going.append(before)

    def _owner(self, node: Operation) -> str:
        """The layer whose channels a known module gives: of a norm that only follows one, that one."""
        return self.names[(node.inputs[0] if self._only_follows(node) else node).module]

    def _is_foreign(self, node: Operation) -> bool:
        """Whether what leaves a node does not follow from what known layers give."""
        if node in self._known or node in self._astray:
            return node in self._astray
        if not node.inputs and node.outputs and all(self._is_linear(after) for after in node.outputs):
            return False  # the transposed weight of a linear layer
        return not self._keeps_channels(node) or has_constant(node)

    def _is_linear(self, node: Operation) -> bool:
        return node in self._known and isinstance(node.module, nn.Linear)

    def _arrives(
        self,
        node: Operation,
        places: list[TensorPlace],
        start: range,
        draft: WiringDraft,
        wide: tuple[int, ...],
        *,
        cuttable: bool,
    ) -> bool:
        """Connect the channels that reach a node, of as many as arrive there, unless they only pass through it."""
        sources, reached = [start[place.root_idx] for place in places], [place.idx for place in places]
        target = self._group_at(node, draft)
        if target is not None and wide == (len(draft.spans[target]),):
            numbers = draft.spans[target]
            draft.connect(sources, [numbers[place] for place in reached], cuttable=cuttable)
        elif target is not None or not self._keeps_channels(node) or node.function in self.ends:
            draft.connect(sources, [PINNED] * len(sources))
            if target is not None:
                draft.connect([PINNED] * len(draft.spans[target]), draft.spans[target])
        else:
            return False
        return True

    def _overrun(self, node: Operation, places: list[TensorPlace], draft: WiringDraft) -> bool:
        """Whether more channels would reach a layer than it has, so that their mapping cannot be true."""
        target = self._group_at(node, draft)
        return target is not None and any(place.idx >= len(draft.spans[target]) for place in places)

    def _keeps_channels(self, node: Operation) -> bool:
        return node.module not in self.names and keeps_channels(node)

    def _group_at(self, node: Operation, draft: WiringDraft) -> str | None:
        name = self.names.get(node.module)
        if name is None or node not in self._known:
            return None
        return next((own for own in (entering(name), name) if own in draft.spans), None)


def _is_by_axis_1(node: Operation) -> bool:
    """Whether the channels that a module gives lie along axis 1, as those of a linear layer on rows do."""
    shape = shape_of(node.function)
    return len(shape) == 2 or not isinstance(node.module, nn.Linear | nn.LayerNorm)
