"""The graph of a network's operations, as torch-pruning traces it. No other file uses torch-pruning's private parts.

Private are the building of its graph (`_build_dependency`, after which every node gets its shape and index mappings),
the attributes of nodes and dependencies, and the classes of operations and mappings, whose names say what they do. 1.6
turned the one file into a package, so no earlier version works. pyproject.toml bounds it at the next minor version,
which a contract test must pass first.

An index mapping says where each channel goes between two operations. torch-pruning fails with any exception on some
operations, such as some of ShuffleNet's shuffles, and would then give no graph. Here such an operation is `lost`: its
edges have no mapping, and the rest of the graph keeps its mappings.
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
"""The kinds of operation between layers, by torch-pruning's names of their classes."""

FIXED = ("_SliceIndexMapping", "_SplitIndexMapping")
"""Mappings that pick channels by numbers in the network's code, and so cannot follow a cut."""

Sizes = Mapping[Any, Callable[[Any], tuple[int, int]]]
"""By the type of a module, what says how many channels enter and leave one."""


class TensorPlace(NamedTuple):
    """A channel on its way; the fields have the names that torch-pruning's mappings read.

    Args:
        idx: its number where it is now.
        root_idx: its number where it started.
    """

    idx: int
    root_idx: int


@dataclass(eq=False)
class TraceStep:
    """The way from an operation to one that takes its result.

    Args:
        target: the operation that takes it.
        maps: functions that say, one after the other, where channels go.
        cuttable: whether they would follow a cut.
    """

    target: Operation
    maps: tuple[Callable[[list[TensorPlace]], list[TensorPlace]], ...]
    cuttable: bool

    def follow(self, places: list[TensorPlace]) -> list[TensorPlace] | None:
        """Where channels come out; None if a mapping fails."""
        try:
            for move in self.maps:
                places = move(places)
        except Exception:  # torch-pruning's mappings raise whatever comes up
            return None
        return places


@dataclass(eq=False)
class Operation:
    """A module of the network, or an operation between modules.

    Args:
        module: the network's module, or torch-pruning's own for an operation.
        function: autograd's record of it.
        kind: what an operation does; `other` for a module of the network.
        placed: for a concatenation or split, whether the beginnings of its parts are known; for the others, whether
            channels can be followed from it.
        lost: whether torch-pruning cannot say where its channels go.
        inputs: the operations whose results it takes.
        outputs: the operations that take its result.
        onward: the way to each of these.
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

    Args:
        model: the network.
        forward: calls the model and gives its outputs.
        through: types of module that are nodes of the graph though they have no parameters.

    Raises:
        DoorError: if torch-pruning's private parts have changed.
    """
    graph, lost = _graph(model, forward, through)
    try:
        return _read(graph, lost)
    except AttributeError as error:
        raise DOOR.changed(f"{type(error.obj).__name__}.{error.name}") from None


def _graph(model: nn.Module, forward: Callable[[], Sequence[Tensor]], through: Sizes) -> tuple[Any, Collection[Any]]:
    import torch_pruning  # slow, and needed for channels only

    parts = _parts(torch_pruning)

    class Through(parts.pruner):
        """What makes a module a node of its own: torch-pruning then does not look inside, and takes these sizes."""

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

    class Unmapped(parts.graph):
        """A graph without mappings: torch-pruning's later steps see no node, and so cannot fail on one."""

        edges: Mapping[nn.Module, Any] | None = None

        def _build_dependency(self, module2node):
            super()._build_dependency(module2node)
            self.edges, self.module2node = module2node, {}

    graph = Unmapped()
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruners: dict[Any, Any] = {kind: Through(sizes) for kind, sizes in through.items()}
        graph.build_dependency(model, [], lambda _model, _inputs: forward(), customized_pruners=pruners, verbose=False)
        if graph.edges is None:
            raise DOOR.changed("DependencyGraph.build_dependency, which calls _build_dependency")
        lost = _map_nodes(graph, parts)
    return graph, lost


class _Parts(NamedTuple):
    """The parts of torch-pruning that this file uses: two classes, and the functions that set shapes and mappings."""

    graph: Any
    pruner: Any
    shapes: Callable[[Any], None]
    mappings: Callable[[Any], None]


def _parts(library: Any) -> _Parts:
    """What is used of torch-pruning; DoorError, naming it, if a part is missing."""
    name = "torch_pruning"
    for mapping in FIXED:
        DOOR.part(library, f"dependency.index_mapping.{mapping}", name)
    for operation in KINDS:
        DOOR.part(library, f"ops.{operation}", name)
    DOOR.part(library, "DependencyGraph._build_dependency", name)
    return _Parts(
        DOOR.part(library, "DependencyGraph", name),
        DOOR.part(library, "BasePruningFunc", name),
        DOOR.part(library, "dependency.shape_infer.init_shape_information", name),
        DOOR.part(library, "dependency.index_mapping.update_index_mapping", name),
    )


def _map_nodes(graph: Any, parts: _Parts) -> set[Any]:
    """Give every node its shape and mappings; returned are the nodes on which torch-pruning fails."""
    lost: set[Any] = set()
    # Mappings are set twice, as torch-pruning does before it prunes, since some need what others have found out.
    for set_up in (parts.shapes, parts.mappings, parts.mappings):
        for module, node in graph.edges.items():
            if node in lost:
                continue
            with _lost_on_failure(node, lost):
                graph.module2node = {module: node}  # one node at a time, so that a failure concerns this one only
                set_up(graph)
    graph.module2node = graph.edges
    lost |= {node for node in graph.edges.values() if node not in lost and not _correct_split(node)}
    for node in lost:
        for edge in _edges(node):
            edge.index_mapping[:] = [None] * len(edge.index_mapping)
    return lost


@dataclass(frozen=True)
class _Part:
    """A mapping to one part of a tensor that is split: its channels from `begin` up to `end`."""

    begin: int
    end: int

    def __call__(self, places: list[TensorPlace]) -> list[TensorPlace]:
        return [TensorPlace(p.idx - self.begin, p.root_idx) for p in places if self.begin <= p.idx < self.end]


def _correct_split(node: Any) -> bool:
    """Map each operation behind a split to the part that it takes; False if that cannot be done.

    torch-pruning assigns the parts in the order in which it reaches the operations, which need not be the order of the
    parts. autograd knows which part each operation takes, and its size. Where an operation takes several parts,
    torch-pruning's order must be right.
    """
    if KINDS.get(type(node.module).__name__) != "split" or all(s.index_mapping[0] is None for s in node.dependencies):
        return True
    for place, out in enumerate(node.outputs):
        parts = {part for operand, part in out.grad_fn.next_functions if operand is node.grad_fn}
        if len(parts) != 1:
            if place not in parts:
                return False
            continue
        begin = sum(shape_of(node.grad_fn, part)[1] for part in range(min(parts)))
        end = begin + shape_of(node.grad_fn, min(parts))[1]
        for edge in node.dependencies:
            if edge.target is out and out not in node.inputs:
                edge.index_mapping[0] = _Part(begin, end)
    return True


@contextmanager
def _lost_on_failure(node: Any, lost: set[Any]):
    try:
        yield
    except Exception:  # torch-pruning raises whatever comes up
        lost.add(node)


def _edges(node: Any) -> list[Any]:
    """The dependencies of a node, and those of its neighbours on it."""
    others = [edge for other in (*node.inputs, *node.outputs) for edge in other.dependencies if edge.target is node]
    return [*node.dependencies, *others]


def _read(graph: Any, lost: Collection[Any]) -> dict[nn.Module, Operation]:
    """torch-pruning's graph as operations."""
    operations = {node: _operation(node, node in lost) for node in graph.module2node.values()}
    for node, operation in operations.items():
        operation.inputs = [operations[other] for other in node.inputs]
        operation.outputs = [operations[other] for other in node.outputs]
        # A dependency begins with a cut of a node's inputs or of its outputs; only those of outputs lead onward.
        cut_outputs = graph.get_pruner_of_module(node.module).prune_out_channels
        for edge in node.dependencies:
            if edge.trigger == cut_outputs and any(edge.target is other for other in node.outputs):
                maps = tuple(move for move in edge.index_mapping if move is not None)
                cuttable = not any(isinstance(move, _Part) or type(move).__name__ in FIXED for move in maps)
                operation.onward.append(TraceStep(operations[edge.target], maps, cuttable))
    return {module: operations[node] for module, node in graph.module2node.items()}


def _operation(node: Any, lost: bool) -> Operation:
    kind = KINDS.get(type(node.module).__name__, "other")
    if kind in ("concat", "split"):
        placed = node.module.offsets is not None
    else:
        placed = any(edge.index_mapping[0] is not None for edge in node.dependencies)
    return Operation(node.module, node.grad_fn, kind, placed, lost)
