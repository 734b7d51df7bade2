"""The contract with torch-pruning: what of its private parts structure/torch_pruning.py rests on."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import torch
import torch.nn.functional as F
import torch_pruning
from torch import nn

from tombola.doors import DoorError
from tombola.structure import torch_pruning as door
from tombola.structure import wiring_of
from tombola.structure.torch_pruning import TensorPlace, operations_of

CHANGED = (
    f"torch-pruning {version('torch-pruning')} has '{{}}' otherwise than Tombola's structure/torch_pruning.py "
    "knows it; mend that file before the bound in pyproject.toml is raised"
)


class Everything(nn.Module):
    """One of each operation of which torch-pruning has a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1)
        self.one, self.two = nn.Conv2d(2, 3, 1), nn.Conv2d(4, 5, 1)
        self.joined = nn.Conv2d(8, 6, 1)
        self.sliced = nn.Conv2d(4, 2, 1)
        self.last = nn.Linear(2 * 4 * 4, 5)

    def forward(self, x):
        one, two = self.first(x).split([2, 4], 1)
        x = F.relu(self.joined(torch.cat([self.one(one), self.two(two)], 1)))
        return self.last(self.sliced(x[:, 1:5]).flatten(1))


def operations(model: nn.Module, x: torch.Tensor) -> dict[str, door.Operation]:
    """A network's operations, by the names of its modules, and by their kinds where they are none of them."""
    names = {module: name for name, module in model.named_modules()}
    found = operations_of(model, lambda: [model(x.requires_grad_())], {})
    return {names.get(module, own.kind): own for module, own in found.items()}


def ways(before: door.Operation, size: int) -> dict[tuple[int, ...], tuple[int, ...]]:
    """By the channels that go on to an operation where they arrive."""
    arrived = [step.follow([TensorPlace(at, at) for at in range(size)]) or [] for step in before.onward]
    return {tuple(own.root_idx for own in step): tuple(own.idx for own in step) for step in arrived}


def test_torch_pruning_maps_what_it_maps_as_it_did():
    found = operations(Everything(), torch.randn(2, 3, 4, 4))
    assert set(door.KINDS.values()) <= found.keys(), CHANGED.format("a network's operations")
    lost = {name for name, own in found.items() if own.lost}
    assert not lost, CHANGED.format(f"index mappings of {lost}")
    assert all(found[own].placed for own in ("concat", "split", "reshape")), CHANGED.format("offsets")
    whole = tuple(range(8))
    assert ways(found["split"], 6) == {(0, 1): (0, 1), (2, 3, 4, 5): (0, 1, 2, 3)}, CHANGED.format("_SplitIndexMapping")
    assert ways(found["one"], 3) == {(0, 1, 2): (0, 1, 2)}, CHANGED.format("_ConcatIndexMapping")
    assert ways(found["two"], 5) == {whole[:5]: whole[3:]}, CHANGED.format("_ConcatIndexMapping")
    assert ways(found["elementwise"], 6) == {whole[1:5]: whole[:4]}, CHANGED.format("_SliceIndexMapping")
    flat = ways(found["sliced"], 2)
    assert flat == {(0,) * 16 + (1,) * 16: tuple(range(32))}, CHANGED.format("_FlattenIndexMapping")
    cuttable = {name: [step.cuttable for step in own.onward] for name, own in found.items()}
    assert cuttable["elementwise"] == [False], CHANGED.format("_SliceIndexMapping")
    assert cuttable["split"] == [False, False], CHANGED.format("_SplitIndexMapping")
    assert cuttable["one"] == cuttable["sliced"] == [True], CHANGED.format("_ConcatIndexMapping")


def test_every_known_class_of_operations_and_mappings_is_there():
    door._parts(torch_pruning)


@pytest.mark.parametrize(
    ("where", "part", "named"),
    [
        ("torch_pruning.dependency.index_mapping", "_SplitIndexMapping", "dependency.index_mapping._SplitIndexMapping"),
        ("torch_pruning.dependency.index_mapping", "update_index_mapping", "index_mapping.update_index_mapping"),
        ("torch_pruning.dependency.shape_infer", "init_shape_information", "shape_infer.init_shape_information"),
        ("torch_pruning.ops", "_ConcatOp", "ops._ConcatOp"),
        ("torch_pruning.DependencyGraph", "_build_dependency", "DependencyGraph._build_dependency"),
    ],
)
def test_a_private_part_that_is_gone_is_one_sentence(where, part, named, monkeypatch):
    monkeypatch.delattr(f"{where}.{part}")
    x = torch.randn(2, 3, 4, 4)
    with pytest.raises(DoorError) as raised:
        wiring_of(Everything(), lambda model: model(x.to(next(model.parameters()).device)))
    says = str(raised.value)
    assert says.startswith(f"torch-pruning {version('torch-pruning')} has no 'torch_pruning.")
    assert named in says
    assert says.endswith("install 'torch-pruning>=1.6,<1.7', or mend that file")
    assert "structure/torch_pruning.py" in says
    assert "\n" not in says


def test_an_attribute_of_a_node_that_is_gone_is_one_sentence(monkeypatch):
    class Renamed(torch_pruning.dependency.graph.Node):
        def __getattribute__(self, name):
            if name == "dependencies" and "inputs" in self.__dict__ and self.__dict__.get("done"):
                raise AttributeError("gone", name=name, obj=self)
            return super().__getattribute__(name)

    built = door._map_nodes

    def then_gone(graph, parts):
        lost = built(graph, parts)
        for node in graph.module2node.values():
            node.done = True
        return lost

    monkeypatch.setattr("torch_pruning.dependency.graph.Node", Renamed)
    monkeypatch.setattr(door, "_map_nodes", then_gone)
    x = torch.randn(2, 3, 4, 4)
    with pytest.raises(DoorError, match=r"has no 'Renamed\.dependencies' as Tombola's structure/torch"):
        wiring_of(Everything(), lambda model: model(x.to(next(model.parameters()).device)))
