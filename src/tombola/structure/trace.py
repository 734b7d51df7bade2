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
    """All channels of a network and what each feeds, from one call on an example.

    A convolution or linear layer has a group of its outputs, which includes the norm that only follows it, and a group
    `<name> inputs`. Other norms and depthwise convolutions have one group, modules that move channels two.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.
        parts: parts whose units are known by names, and which are added where the trace does not reach them.
        untraced: whether the parts alone will do if the network cannot be traced.

    Raises:
        TombolaError: if the network cannot be traced.
    """
    try:
        draft = _read_trace(model, probe)
    except DoorError:
        raise
    except TombolaError:
        if not (untraced and parts):
            raise
        draft = WiringDraft()
    for part in parts:
        _add_part(draft, part, model)
    return draft.done()


def _read_trace(model: nn.Module, probe: Probe) -> WiringDraft:
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


def _add_part(draft: WiringDraft, part: Part, model: nn.Module) -> None:
    """Add the axes of a part that the trace does not know; each of its units can only be cut as a whole."""
    axes = list(axis_groups(part, model))
    if any(group.name in draft.spans for group, _ in axes):
        return
    for group, norm in axes:
        draft.add(group)
        if norm is not None:
            draft.norms[group.name] = norm
    *makers, taken, outputs = [draft.spans[group.name] for group, _ in axes]
    for span in (*makers, taken):
        draft.ties += [(makers[0][place - place % part.width], channel) for place, channel in enumerate(span)]
    draft.flows += list(zip(makers[-1], taken, strict=True))
    draft.connect(outputs, [PINNED] * len(outputs))


class _Traced:
    """The graph of a network's operations, and the layers in it whose channels can be followed (known).

    A layer is unknown if it is called several times or shared, or if its channels do not lie along axis 1.
    """

    def __init__(self, model: nn.Module, probe: Probe) -> None:
        trace = traced(model, probe)
        self.operations = trace.operations
        self.names = names_of(trace.twin)
        self.ends = {tensor.grad_fn for tensor in trace.outputs}
        elsewhere = shared(model)
        known = [
            node
            for module, node in self.operations.items()
            if is_known(module)
            and trace.calls[module] == 1
            and self.names[module] not in elsewhere
            and _has_channels_on_axis_1(node)
        ]
        self._known = set(known)
        self._astray: set[Operation] = set()  # operations that channels reach at places that cannot be said
        weighted = [module for module in self.names if is_producer(module) or isinstance(module, NORMS)]
        self.blind = trace.untraced or any(module not in self.operations for module in weighted)
        # In the network's order, since torch-pruning's is that of its walk through the graph.
        order = {module: place for place, module in enumerate(self.names)}
        self.nodes = sorted((n for n in known if not self._only_follows(n)), key=lambda node: order[node.module])

    def _only_follows(self, node: Operation) -> bool:
        """Whether this is a norm that only one layer feeds, and that layer feeds only this norm."""
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
        """Whether this node's tensor is an output of the network."""
        return node.function in self.ends or not node.outputs

    def groups_of(self, node: Operation) -> list[UnitGroup]:
        """The channels that enter and leave a layer, or pass through it, with what they own of its parameters."""
        module, end, name = node.module, self.end(node).module, self.names[node.module]
        if isinstance(module, ChannelMap):
            return [UnitGroup(entering(name), module.inputs, ()), UnitGroup(name, len(module.sources), ())]
        is_output = self.leaves(self.end(node))
        slices = leaving_slices(name, module, scored=not (is_depthwise(module) or is_output))
        if end is not module:
            slices += leaving_slices(self.names[end], end, scored=not is_output)
        group = UnitGroup(name, channels(module), tuple(slices))
        if not has_inputs(module):
            return [group]
        return [UnitGroup(entering(name), inputs(module), tuple(entering_slices(name, module))), group]

    def tie(self, node: Operation, draft: WiringDraft) -> None:
        """Note which of a layer's channels can only be cut together, and where a ChannelMap moves channels."""
        module, first = node.module, draft.spans[self.names[node.module]].start
        if isinstance(module, ChannelMap):
            first_input = draft.spans[entering(self.names[module])].start
            draft.flows += [(first_input + s, first + to) for to, s in enumerate(module.sources) if s is not None]
            return
        size = max(normed_together(module), normed_together(self.end(node).module))
        draft.ties += [(first + i - i % size, first + i) for i in range(channels(module))]
        if has_inputs(module) and getattr(module, "groups", 1) > 1:
            # Of a grouped convolution, a group's outputs and inputs can only be cut together.
            first_input = draft.spans[entering(self.names[module])].start
            group_inputs, group_outputs = inputs(module) // module.groups, channels(module) // module.groups
            draft.ties += [(first + i - i % group_outputs, first + i) for i in range(channels(module))]
            draft.ties += [(first + i // group_inputs * group_outputs, first_input + i) for i in range(inputs(module))]

    def follow(self, node: Operation, draft: WiringDraft) -> None:
        """Connect a node's channels with each layer, norm or output of the network that they reach."""
        name, last = self.names[node.module], self.end(node)
        start = draft.spans[name]
        if self.leaves(last):
            draft.connect(start, [PINNED] * len(start))
        to_visit = [(last, [TensorPlace(at, at) for at in range(len(start))], True)]
        visited = set()
        while to_visit:
            here, places, cuttable_here = to_visit.pop()
            for step in here.onward:
                there, cuttable = step.follow(places), cuttable_here and step.cuttable
                if there is None or self._overrun(step.target, there, draft):
                    self._astray.add(step.target)
                    draft.lost[name] = stem_of(step.target.function)
                    draft.connect(start, [PINNED] * len(start))
                    continue
                if not cuttable:
                    draft.ties += [(PINNED, channel) for channel in start]
                key = (step.target, tuple(there), cuttable)
                if there and key not in visited:
                    visited.add(key)
                    width = shape_of(here.function)[1:2]
                    if not self._arrives(step.target, there, start, draft, width, cuttable=cuttable):
                        to_visit.append((step.target, there, cuttable))

    def pin(self, draft: WiringDraft) -> None:
        """Keep all channels alive that something unknown feeds."""
        # Where layers are not in the graph, channels may be used without a gradient or in training only, unseen.
        if self.blind:
            for group in draft.groups:
                draft.connect(draft.spans[group.name], [PINNED] * group.size)
                draft.connect([PINNED] * group.size, draft.spans[group.name])
        self._note_lost(draft)
        to_visit = [node for node in self.operations.values() if self._is_foreign(node)]
        visited = set(to_visit)
        while to_visit:
            for after in to_visit.pop().outputs:
                target = self._group_at(after, draft)
                if target is not None:
                    draft.connect([PINNED] * len(draft.spans[target]), draft.spans[target])
                elif after not in visited:
                    visited.add(after)
                    to_visit.append(after)

    def _note_lost(self, draft: WiringDraft) -> None:
        """Note the layers from which channels come to an operation that torch-pruning cannot map."""
        for lost in (node for node in self.operations.values() if node.lost):
            to_visit, visited = [lost], {lost}
            while to_visit:
                for before in to_visit.pop().inputs:
                    if before in self._known:
                        draft.lost.setdefault(self._owner(before), stem_of(lost.function))
                    elif before not in visited:
                        visited.add(before)
                        to_visit.append(before)

    def _owner(self, node: Operation) -> str:
        """The layer whose channels leave a node: for a norm that only follows a layer, that layer."""
        return self.names[(node.inputs[0] if self._only_follows(node) else node).module]

    def _is_foreign(self, node: Operation) -> bool:
        """Whether a node's result does not only depend on the channels of known layers."""
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
        width: tuple[int, ...],
        *,
        cuttable: bool,
    ) -> bool:
        """Connect the channels that reach a node; False, without doing so, if they only pass through it.

        A layer of another number of channels than the tensor that reaches it (width) takes them in an unknown order.
        """
        sources, reached = [start[place.root_idx] for place in places], [place.idx for place in places]
        target = self._group_at(node, draft)
        if target is not None and width == (len(draft.spans[target]),):
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
        """The group that channels enter at a node: a layer's inputs, a norm's own, or None."""
        name = self.names.get(node.module)
        if name is None or node not in self._known:
            return None
        return next((group for group in (entering(name), name) if group in draft.spans), None)


def _has_channels_on_axis_1(node: Operation) -> bool:
    """Whether the channels of a module's result lie along axis 1, as those of a linear layer on rows do."""
    shape = shape_of(node.function)
    return len(shape) == 2 or not isinstance(node.module, nn.Linear | nn.LayerNorm)
