"""The graph of a network's operations, as torch-pruning traces it. Of its private parts, this file alone knows.

Private are how its graph is built (`_build_dependency`, after which come the shapes and index mappings of every node),
what a node and a dependency hold, and the classes of operations and of mappings, which say what they do by their names.
Nothing of it is promised: 1.6 made a package of the one file that it was, so that nothing before will do, and the
bound in pyproject.toml is the next minor version, until the contract test has been run with it.

An index mapping says where each channel goes between two operations. torch-pruning fails on some operations, with
whatever exception comes up, as on some with which ShuffleNet shuffles channels. Its graph would then not be; here such
an operation is `lost`: its edges have no mapping, and the rest of the graph has.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from tombola.doors import Door
from tombola.structure.autograd import shape_of

DOOR = Door("torch-pruning", ">=1.6,<1.7", "structure/torch_pruning.py")

Kind = Literal["concat", "split", "slice", "reshape", "elementwise", "other"]
KINDS: Mapping[str, Kind] = {
    "_ConcatOp": "concat",
    "_SplitOp": "split",
    "_SliceOp": "slice",
    "_ReshapeOp": "reshape",
    "_ElementWiseOp": "elementwise",
}
"""What stands between layers, by torch-pruning's names of their classes."""

FIXED = ("_SliceIndexMapping", "_SplitIndexMapping")
"""What picks channels by numbers that are written in the network's code, and so cannot follow a cut."""


Sizes = Mapping[Any, Callable[[Any], tuple[int, int]]]
"""By the type of a module how many channels go in and come out."""


class TensorPlace(NamedTuple):
    """A channel on its way: where it is now, and where it was at first; called as torch-pruning's mappings call it."""

    idx: int
    root_idx: int


@dataclass(eq=False)
class TraceStep:
    """The way from an operation to one that takes what it gives.

    maps: where each channel goes, one function after the other. cuttable: whether they would follow a cut.
    """

    target: Operation
    maps: tuple[Callable[[list[TensorPlace]], list[TensorPlace]], ...]
    cuttable: bool

    def follow(self, places: list[TensorPlace]) -> list[TensorPlace] | None:
        """Where channels come out; None if that cannot be said."""
        try:
            for move in self.maps:
                places = move(places)
        except Exception:  # whatever torch-pruning's mapping stumbles on: it knows less than it seemed to
            return None
        return places


@dataclass(eq=False)
class Operation:
    """A module of the network, or an operation between modules.

    module: what is called, of the network or torch-pruning's own. function: what autograd recorded of it. placed: for
    what joins and splits, whether it is known where its parts begin; for what reshapes, whether channels can be
    followed to it or from it. lost: whether torch-pruning could not say where its channels go.
    """

    module: Any
    function: Node
    kind: Kind
    placed: bool = False
    lost: bool = False
    inputs: list[Operation] = field(default_factory=list)
    outputs: list[Operation] = field(default_factory=list)
    onward: list[TraceStep] = field(default_factory=list)


def operations_of(
    model: nn.Module, forward: Callable[[], Sequence[Tensor]], through: Sizes
) -> dict[nn.Module, Operation]:
    """All operations by their modules, in torch-pruning's order.

    forward: calls the model and gives its outputs. through: modules at which the graph stops though they have no
    parameters. DoorError if torch-pruning is not as it was.
    """
    graph, lost = _graph(model, forward, through)
    try:
        return _read(graph, lost)
    except AttributeError as error:
        raise DOOR.changed(f"{type(error.obj).__name__}.{error.name}") from None


def _graph(model: nn.Module, forward: Callable[[], Sequence[Tensor]], through: Sizes) -> tuple[Any, Collection[Any]]:
    import torch_pruning

    plain = _parts(torch_pruning)

    class Through(plain.pruner):
        """Where torch-pruning's graph stops: a module whose outputs are not its inputs one by one."""

        def __init__(self, sizes: Callable[[Any], tuple[int, int]]) -> None:
            super().__init__()
            self._sizes = sizes

        def prune_out_channels(self, layer, idxs):
            return layer

        def prune_in_channels(self, layer, idxs):
            return layer

        def get_out_channels(self, layer):
            return self._sizes(layer)[1]

        def get_in_channels(self, layer):
            return self._sizes(layer)[0]

    class Unmapped(plain.graph):
        """A graph of which no node has a mapping: what comes after its edges sees no node, and so cannot fail."""

        edges: Mapping[nn.Module, Any] | None = None

        def _build_dependency(self, module2node):
            super()._build_dependency(module2node)
            self.edges, self.module2node = module2node, {}

    graph = Unmapped()
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own: dict[Any, Any] = {kind: Through(sizes) for kind, sizes in through.items()}
        graph.build_dependency(model, [], lambda _model, _inputs: forward(), customized_pruners=own, verbose=False)
        if graph.edges is None:
            raise DOOR.changed("DependencyGraph.build_dependency, which calls _build_dependency")
        lost = _map(graph, plain)
    return graph, lost


class _Parts(NamedTuple):
    """What this file takes from torch-pruning's modules."""

    graph: Any
    pruner: Any
    shapes: Callable[[Any], None]
    mappings: Callable[[Any], None]


def _parts(library: Any) -> _Parts:
    """Of torch-pruning what is used by name, or a DoorError that names what is missing."""
    name = "torch_pruning"
    for own in FIXED:
        DOOR.part(library, f"dependency.index_mapping.{own}", name)
    for own in KINDS:
        DOOR.part(library, f"ops.{own}", name)
    DOOR.part(library, "DependencyGraph._build_dependency", name)
    return _Parts(
        DOOR.part(library, "DependencyGraph", name),
        DOOR.part(library, "BasePruningFunc", name),
        DOOR.part(library, "dependency.shape_infer.init_shape_information", name),
        DOOR.part(library, "dependency.index_mapping.update_index_mapping", name),
    )


def _map(graph: Any, parts: _Parts) -> set[Any]:
    """Give every node its shape and mappings, one after another; the nodes on which torch-pruning fails.

    Mappings twice, as torch-pruning does before it prunes: some need what others have found out.
    """
    lost: set[Any] = set()
    for work in (parts.shapes, parts.mappings, parts.mappings):
        for module, node in graph.edges.items():
            if node in lost:
                continue
            with _unless_lost(node, lost):
                graph.module2node = {module: node}
                work(graph)
    graph.module2node = graph.edges
    lost |= {node for node in graph.edges.values() if node not in lost and not _in_order(node)}
    for node in lost:
        for step in _edges(node):
            step.index_mapping[:] = [None] * len(step.index_mapping)
    return lost


@dataclass(frozen=True)
class _Part:
    """The channels of one part of what is split, by where it begins and ends."""

    begin: int
    end: int

    def __call__(self, places: list[TensorPlace]) -> list[TensorPlace]:
        return [TensorPlace(p.idx - self.begin, p.root_idx) for p in places if self.begin <= p.idx < self.end]


def _in_order(node: Any) -> bool:
    """Let each operation behind what splits a tensor have the part that it takes; whether that can be done.

    torch-pruning gives the parts to the operations in the order in which it comes to them, which is another one. Which
    they take, and how large it is, autograd knows; where one takes several, torch-pruning must have been right.
    """
    if KINDS.get(type(node.module).__name__) != "split" or all(s.index_mapping[0] is None for s in node.dependencies):
        return True
    for place, out in enumerate(node.outputs):
        parts = {at for own, at in out.grad_fn.next_functions if own is node.grad_fn}
        if len(parts) != 1:
            if place not in parts:
                return False
            continue
        begin = sum(shape_of(node.grad_fn, at)[1] for at in range(min(parts)))
        end = begin + shape_of(node.grad_fn, min(parts))[1]
        for edge in node.dependencies:
            if edge.target is out and out not in node.inputs:
                edge.index_mapping[0] = _Part(begin, end)
    return True


@contextmanager
def _unless_lost(node: Any, lost: set[Any]):
    try:
        yield
    except Exception:  # whatever it stumbles on, it is this node's mapping that is not known
        lost.add(node)


def _edges(node: Any) -> list[Any]:
    """The dependencies of a node, and those of others on it."""
    others = [step for other in (*node.inputs, *node.outputs) for step in other.dependencies if step.target is node]
    return [*node.dependencies, *others]


def _read(graph: Any, lost: Collection[Any]) -> dict[nn.Module, Operation]:
    """torch-pruning's graph in Tombola's words."""
    made = {node: _operation(node, node in lost) for node in graph.module2node.values()}
    for node, own in made.items():
        own.inputs = [made[other] for other in node.inputs]
        own.outputs = [made[other] for other in node.outputs]
        leaving = graph.get_pruner_of_module(node.module).prune_out_channels
        for edge in node.dependencies:
            if edge.trigger == leaving and any(edge.target is other for other in node.outputs):
                maps = tuple(move for move in edge.index_mapping if move is not None)
                cuttable = not any(isinstance(move, _Part) or type(move).__name__ in FIXED for move in maps)
                own.onward.append(TraceStep(made[edge.target], maps, cuttable))
    return {module: made[node] for module, node in graph.module2node.items()}


def _operation(node: Any, lost: bool) -> Operation:
    kind = KINDS.get(type(node.module).__name__, "other")
    if kind in ("concat", "split"):
        placed = node.module.offsets is not None
    else:
        placed = any(edge.index_mapping[0] is not None for edge in node.dependencies)
    return Operation(node.module, node.grad_fn, kind, placed, lost)
