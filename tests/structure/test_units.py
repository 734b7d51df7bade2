"""Units: a filter's slices live and die together, and its score is that of its elements."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tombola import Mask, Prunable, TombolaError, attach, select
from tombola.structure import (
    Blocks,
    Channels,
    PartUnits,
    SeparateChannels,
    Slice,
    UnitGroup,
    Units,
    Weights,
    prunable,
)


def one_each(count: int) -> tuple[tuple[int, ...], ...]:
    return tuple((index,) for index in range(count))


def two_convolutions() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))


def filters(reduction="sum", consumer_scored: bool = False) -> Units:
    """The first convolution's filters: row, bias, batch norm's γ and β, and the next convolution's input slice."""
    slices = [Slice(name, 0, one_each(4)) for name in ("0.weight", "0.bias", "1.weight", "1.bias")]
    slices.append(Slice("3.weight", 1, one_each(4), scored=consumer_scored))
    return Units((UnitGroup("0", 4, tuple(slices)),), reduction)


def scores_for(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.rand(p.shape) - 0.3 for name, p in model.named_parameters()}


REDUCTIONS = {"sum": torch.sum, "mean": torch.mean, "l2": lambda v: v.square().sum().sqrt()}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("consumer", [True, False])
def test_a_filters_score_is_that_of_all_its_scored_elements(reduction, consumer):
    scores = scores_for(two_convolutions())
    reduced = filters(reduction, consumer).reduce(scores)
    assert list(reduced) == ["0"]
    for unit in range(4):
        parts = [scores[name][unit].flatten() for name in ("0.weight", "0.bias", "1.weight", "1.bias")]
        parts += [scores["3.weight"][:, unit].flatten()] * consumer
        assert reduced["0"][unit] == pytest.approx(REDUCTIONS[reduction](torch.cat(parts)).item(), rel=1e-5)


def test_parameters_without_scores_do_not_count():
    scores = {"0.weight": torch.rand(4, 1, 3, 3)}
    assert torch.allclose(filters().reduce(scores)["0"], scores["0.weight"].sum((1, 2, 3)))


@pytest.mark.parametrize("removed", [(), (2,), (0, 3), (0, 1, 2, 3)])
def test_a_removed_filter_takes_all_its_slices_and_nothing_else(removed):
    model, units = two_convolutions(), filters()
    alive = torch.tensor([unit not in removed for unit in range(4)])
    kept = Mask.of({"0": alive}, ties=2)
    mask = units.expand(kept, dict(model.named_parameters()))
    assert mask.ties == 2
    assert set(mask) == {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight"}
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        assert torch.equal(mask[name].flatten(1).all(1) if mask[name].ndim > 1 else mask[name], alive)
        assert mask.kept(name) == alive.sum() * mask[name][0].numel()
    assert torch.equal(mask["3.weight"], alive.reshape(1, 4, 1, 1).expand(3, 4, 3, 3))
    assert units.removed(kept) == {"0": removed}


def test_a_removed_filter_leaves_no_trace_in_the_outputs():
    model = two_convolutions().eval()
    model[1].bias.data.uniform_(1, 2)
    mask = filters().expand(Mask.of({"0": torch.tensor([True, False, True, False])}), dict(model.named_parameters()))
    smaller = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1))
    keep = [0, 2]
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        smaller.get_parameter(name).data.copy_(model.get_parameter(name).data[keep])
    smaller[3].weight.data.copy_(model[3].weight.data[:, keep])
    smaller[3].bias.data.copy_(model[3].bias.data)
    attach(mask, model).detach()
    inputs = torch.randn(2, 1, 5, 5)
    assert torch.allclose(model(inputs), smaller.eval()(inputs), atol=1e-6)


def test_an_element_of_two_units_dies_with_either():
    units = Units(
        (
            UnitGroup("rows", 3, (Slice("w", 0, one_each(3)),)),
            UnitGroup("columns", 2, (Slice("w", 1, ((0, 1), (2, 3))),)),
        )
    )
    kept = Mask.of({"rows": torch.tensor([True, True, False]), "columns": torch.tensor([True, False])})
    mask = units.expand(kept, {"w": torch.zeros(3, 4)})
    assert mask["w"].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert units.removed(kept) == {"rows": (2,), "columns": (1,)}


def test_a_unit_may_own_whole_parameters():
    units = Units((UnitGroup("block", 1, (Slice("a", None), Slice("b", None))),))
    parameters = {"a": torch.zeros(2, 2), "b": torch.zeros(3), "c": torch.zeros(1)}
    scores = {"a": torch.ones(2, 2), "b": torch.full((3,), 2.0)}
    assert units.reduce(scores)["block"].tolist() == [10.0]
    assert units.expand(Mask.of({"block": torch.tensor([False])}), parameters).collapsed == ("a", "b")
    assert units.expand(Mask.of({"block": torch.tensor([True])}), parameters).density == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.floats(0.1, 1), st.integers(0, 99))
def test_units_of_several_groups_are_chosen_in_one_exact_ranking(sizes, density, seed):
    generator = torch.Generator().manual_seed(seed)
    parameters = {f"w{i}": torch.rand(size, 3, generator=generator) for i, size in enumerate(sizes)}
    units = Units(tuple(UnitGroup(f"g{i}", s, (Slice(f"w{i}", 0, one_each(s)),)) for i, s in enumerate(sizes)))
    if round(density * sum(sizes)) < 1:
        return
    kept = select(units.reduce(parameters), density)
    mask = units.expand(kept, parameters)
    assert kept.total_kept == round(density * sum(sizes))
    assert mask.total_kept == 3 * kept.total_kept
    assert sum(len(own) for own in units.removed(kept).values()) == sum(sizes) - kept.total_kept


@pytest.mark.parametrize(
    ("size", "part", "says"),
    [
        (4, Slice("conv.weight", 0, one_each(3)), "group 'g' has 4 units but its slice of 'conv.weight' places 3"),
        (4, Slice("conv.weight", 0), "'conv.weight' places 0"),
        (2, Slice("conv.weight", None), "only a single unit can own 'conv.weight' whole"),
    ],
)
def test_slices_that_do_not_fit_their_group_are_refused(size, part, says):
    with pytest.raises(TombolaError, match=says):
        UnitGroup("g", size, (part,))


@pytest.mark.parametrize(
    "part", [Slice("w", 0, ((4,),)), Slice("w", 2, ((0,),)), Slice("v", 0, ((0,),)), Slice("v", None)]
)
@pytest.mark.parametrize("alive", [True, False])
def test_slices_that_lie_outside_the_model_are_refused(part, alive):
    units = Units((UnitGroup("g", 1, (part,)),))
    with pytest.raises(TombolaError, match=f"group 'g' has a slice that does not fit '{part.parameter}'"):
        units.expand(Mask.of({"g": torch.tensor([alive])}), {"w": torch.zeros(4, 3)})


def test_a_group_that_no_score_covers_is_refused():
    with pytest.raises(TombolaError, match="no score covers group '0'"):
        filters().reduce({"3.weight": torch.rand(3, 4, 3, 3)})


def test_single_weights_are_their_own_units():
    scores = {"w": torch.rand(4)}
    units = Weights().units(nn.Linear(1, 1), lambda model: None)
    kept = units.choose(scores, 0.5, scope="global", within=None, floor=0)
    assert units.expand(kept, scores) == kept
    assert units.removed(kept) == {}


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc2(self.fc1(x).relu())


@pytest.mark.parametrize(
    ("own", "name", "size"),
    [
        (Channels(), "fc1", 8),
        (SeparateChannels(), "fc1", 8),
        (PartUnits("neuron"), "fc2", 8),
        (Blocks(1, least=1), "", 2),
    ],
    ids=lambda own: getattr(own, "name", None),
)
def test_units_that_a_network_does_not_have_are_refused(own, name, size):
    model = nn.Sequential(*(Added() for _ in range(3))) if isinstance(own, Blocks) else TwoLayers()
    units, parameters = own.units(model, lambda network: network(torch.ones(2, 4))), dict(model.named_parameters())
    assert units.expand(units.kept({name: (1,)}), parameters).total_kept < units.expand(Mask.of({}), parameters).size
    bits = torch.tensor([True] * size)
    for foreign, says in (
        ({name: bits, "typo": bits}, "no units of the name 'typo'"),
        ({name: bits[1:]}, f"has {size - 1} of '{name}', and the network has {size} units"),
    ):
        with pytest.raises(TombolaError, match=says):
            units.expand(Mask.of(foreign), parameters)
    for removed in ({"typo": (0,)}, {"typo": ()}, {name: (size,)}, {name: (-1,)}, {name: (0.5,)}):
        with pytest.raises(TombolaError, match="units are not this network's"):
            units.kept(removed)


class Added(TwoLayers):
    def forward(self, x):
        return x + super().forward(x)


# What may be pruned


def test_every_convolution_and_linear_weight_is_prunable_by_default():
    model = nn.Sequential(*two_convolutions(), nn.Flatten(), nn.LayerNorm(3), nn.Linear(3, 2), nn.Embedding(3, 2))
    assert list(prunable(model)) == ["0.weight", "3.weight", "6.weight"]
    assert all(own is model.get_parameter(name) for name, own in prunable(model).items())


def test_patterns_and_types_choose():
    model = nn.Sequential(*two_convolutions(), nn.Flatten(), nn.Linear(3, 2))
    assert list(Prunable(exclude=("5.*",))(model)) == ["0.weight", "3.weight"]
    assert list(Prunable(include=("0.*", "5.*"))(model)) == ["0.weight", "5.weight"]
    assert list(Prunable(include=("0.*", "5.*"), exclude=("0*",))(model)) == ["5.weight"]
    assert list(Prunable(types=(nn.Linear,))(model)) == ["5.weight"]
    assert list(Prunable(types=(nn.BatchNorm2d,))(model)) == ["1.weight"]


def test_a_shared_weight_is_listed_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert list(prunable(model)) == ["0.weight"]


def test_nothing_to_prune_is_refused():
    for model in (nn.Sequential(nn.ReLU()), nn.LayerNorm(3)):
        with pytest.raises(TombolaError, match="nothing to prune"):
            prunable(model)
    with pytest.raises(TombolaError, match=r"include=\('typo',\)"):
        Prunable(include=("typo",))(two_convolutions())
