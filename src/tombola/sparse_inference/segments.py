"""Parts of a traced network that the kernels know whole, from one value to one value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from tombola.sparse_inference.capture import Builder, NotKnown
from tombola.sparse_inference.program import Program
from tombola.structure import moves_channels


@dataclass(frozen=True, eq=False)
class Segment:
    """A part of a network as a program.

    Args:
        source: the value that goes in.
        nodes: what is done, in order.
        result: the last node, whose value comes out.
        program: the same as steps.
    """

    source: fx.Node
    nodes: tuple[fx.Node, ...]
    result: fx.Node
    program: Program

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers in it that have weights."""
        return tuple(step.layer for step in self.program.steps if step.layer)

    def dense(self, network: fx.GraphModule) -> fx.GraphModule:
        """The part by itself, as the network computes it."""
        graph = fx.Graph()
        copies = {self.source: graph.placeholder("x")}
        for node in self.nodes:
            copies[node] = graph.node_copy(node, lambda argument: copies[argument])
        graph.output(copies[self.result])
        return fx.GraphModule(network, graph).eval()


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return moves_channels(m) or super().is_leaf_module(m, module_qualified_name)


class _Values(fx.Interpreter):
    """Notes the shape of each node's value; None where it is no tensor."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        n.meta["value"] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value


def traced(network: nn.Module, example: Tensor) -> fx.GraphModule | None:
    """The network's graph with the shapes of its values, or None if it cannot be traced.

    Args:
        network: what is called.
        example: a batch of inputs.
    """
    try:
        graph = fx.GraphModule(network, _Tracer().trace(network)).eval()
        with torch.no_grad():
            _Values(graph).run(example)
    except Exception:  # whatever a network's own code raises when it meets a proxy instead of a tensor
        return None
    return graph


def segments_of(network: fx.GraphModule, masked: Collection[str]) -> Iterator[Segment]:
    """The longest parts with a masked layer that the kernels know.

    Args:
        network: traced.
        masked: the names of its masked layers.
    """
    modules = dict(network.named_modules())
    nodes = [node for node in network.graph.nodes if node.op not in ("placeholder", "output")]
    at = 0
    while at < len(nodes):
        end = _longest(nodes, at, modules)
        if end > at and (own := segment(nodes[at:end], modules)) and any(layer in masked for layer in own.layers):
            yield own
        at = max(end, at + 1)


def segment(nodes: Sequence[fx.Node], modules: Mapping[str, nn.Module]) -> Segment | None:
    """The nodes as a program; None if the kernels do not know one of them, or they have several inputs or results."""
    ends = _ends(nodes)
    if ends is None:
        return None
    source, result = ends
    builder = Builder(modules)
    try:
        builder.begin(source)
        for node in nodes:
            builder.add(node)
        return Segment(source, tuple(nodes), result, builder.finish(result))
    except NotKnown:
        return None


def _longest(nodes: Sequence[fx.Node], begin: int, modules: Mapping[str, nn.Module]) -> int:
    """Where the longest part ends that begins here; `begin` if none does."""
    longest, builder = begin, Builder(modules)
    for end in range(begin + 1, len(nodes) + 1):
        node = nodes[end - 1]
        try:
            if not builder.maps:
                builder.begin(next(one for one in node.all_input_nodes if one.meta.get("value") is not None))
            builder.add(node)
        except (NotKnown, KeyError, StopIteration):  # of a value from elsewhere, there is no map
            break
        if _ends(nodes[begin:end]) is not None:
            longest = end
    return longest


def _ends(nodes: Sequence[fx.Node]) -> tuple[fx.Node, fx.Node] | None:
    """What goes into some nodes and what comes out of them, if that is one value each."""
    own = set(nodes)
    sources = {one for node in nodes for one in node.all_input_nodes} - own
    results = [node for node in nodes if any(user not in own for user in node.users)]
    if len(sources) != 1 or len(results) != 1 or results[0].meta["value"] is None:
        return None
    return sources.pop(), results[0]
