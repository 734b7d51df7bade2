"""The sparsest network that learns: structures counted, the search, what it keeps, and what the user sees."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

import tombola as tb
from tombola import TombolaError, zoo
from tombola.studies import RECIPES, Engine, Store
from tombola.studies.sparsest import (
    WHOLE,
    Search,
    Structure,
    how_many,
    refined,
    settings,
    sparsest,
    spiral_task,
    structured,
    supports,
    whole,
)
from tombola.studies.sparsest.structures import downwards
from tombola.training import Trained

PRUNED = {name: own.pruned.runs() for name, own in WHOLE.items()}


def phases(name: str) -> tuple[int, int]:
    """Runs of both phases: three schedules, two learning rates in the first."""
    own = WHOLE[name]
    return len(own.structured) * 2 * 3, sum(1 for _ in own.refined) * len(own.lrs) * 3


def test_the_study_has_as_many_runs_as_it_says():
    found = {name: phases(name) for name in WHOLE}
    assert found == {
        "random-95": (24_576, 155_952),
        "random-99.5": (24_576, 189_624),
        "fixed-95": (558, 2_496),
        "fixed-99.5": (2_034, 70_584),
    }
    assert PRUNED == {"random-95": 18_954, "random-99.5": 18_954, "fixed-95": 9_720, "fixed-99.5": 11_340}
    random = PRUNED["random-95"] + found["random-95"][0] + found["random-95"][1] + found["random-99.5"][1]
    fixed = [sum(found[name]) + PRUNED[name] for name in ("fixed-95", "fixed-99.5")]
    assert (random, *fixed) == (389_106, 12_774, 83_958)
    assert random + sum(fixed) == 485_838


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (3, 2), (2, 3), (3, 3), (4, 2)])
def test_supports_are_all_matrices_without_empty_rows_or_columns_modulo_the_order_of_rows(rows, columns):
    """Against brute force over every binary matrix."""
    classes: dict[int, set] = {}
    for bits in range(2 ** (rows * columns)):
        matrix = np.array([(bits >> i) & 1 for i in range(rows * columns)]).reshape(rows, columns)
        if matrix.any(0).all() and matrix.any(1).all():
            classes.setdefault(int(matrix.sum()), set()).add(tuple(sorted(map(tuple, matrix.tolist()))))
    listed = {kept: list(supports(rows, columns, kept)) for kept in range(rows * columns + 1)}
    assert {kept: len(own) for kept, own in listed.items() if own} == {k: len(own) for k, own in classes.items()}
    assert sum(map(len, listed.values())) == how_many(rows, columns)
    for own in (own for group in listed.values() for own in group):
        assert list(own) == sorted(own, key=lambda row: (-row.bit_count(), -row))


def test_to_permute_units_is_to_permute_columns_of_the_next_layer():
    """Why rows modulo their order lose nothing: every network of a triple is one of those listed, its units renamed."""
    listed = {own.supports for own in refined((2, 2, 2))}
    rows = [(3, 3), (3, 2), (3, 1), (2, 3), (1, 3), (2, 1), (1, 2)]  # all 2×2 matrices without an empty row or column
    for layers in product(rows, repeat=3):
        renamed, order = [], (0, 1)
        for support in layers:
            moved = [sum((row >> 1 - i & 1) << 1 - place for place, i in enumerate(order)) for row in support]
            order = tuple(sorted((0, 1), key=lambda i: (-moved[i].bit_count(), -moved[i])))
            renamed.append(tuple(moved[i] for i in order))
        assert tuple(renamed) in listed


def test_smaller_structures_come_first_and_downwards_the_larger_ones():
    sizes = [own.size for own in structured()]
    assert sizes == sorted(sizes)
    assert len(sizes) == 4096
    up = [own.weights for own in refined((3, 2, 2))]
    down = [own.weights for own in downwards((3, 2, 2))]
    assert up == sorted(up)
    assert down == up[::-1]
    assert {own.name for own in downwards((3, 2, 2))} == {own.name for own in refined((3, 2, 2))}
    assert next(iter(downwards((7, 4, 4)))).weights == Structure((7, 4, 4)).weights


def test_a_structure_counts_weights_and_biases_as_the_study_does():
    assert [(Structure(w).weights, Structure(w).size) for w in ((3, 3, 3), (7, 3, 3), (3, 2, 2), (6, 3, 2))] == [
        (27, 37),
        (47, 61),
        (18, 26),
        (38, 50),
    ]
    assert (Structure((16, 16, 16)).weights, Structure((16, 16, 16)).size) == (560, 609)
    for own in [*structured(4), *refined((3, 2, 2))]:
        mask = own.mask((5, 5, 5))
        assert sum(mask.kept(name) for name in mask if name.endswith("weight")) == own.weights
        assert mask.total_kept == own.size
        assert Structure.parse(own.name) == own


def test_a_support_keeps_the_weights_that_it_names():
    mask = Structure((3, 2, 2), ((3, 2, 1), (4, 3), (2, 1))).mask((3, 2, 2))
    assert mask["1.weight"].int().tolist() == [[1, 1], [1, 0], [0, 1]]
    assert mask["3.weight"].int().tolist() == [[1, 0, 0], [0, 1, 1]]
    assert mask["7.weight"].all()


def test_the_network_and_its_recipe_are_the_studys():
    net = zoo.model("spiral-mlp", (2,), 2)()
    assert [tuple(p.shape) for p in net.parameters() if p.ndim == 2] == [(16, 2), (16, 16), (16, 16), (1, 16)]
    assert sum(p.numel() for p in net.parameters()) == 609
    recipe = RECIPES["cubist-spiral"]
    task = spiral_task((3, 2, 2))
    assert len(task.batches("train", 0, 0)) == 390
    steps = [epoch * 390 + within for epoch in (0, 14, 15, 29, 30, 49) for within in (0, 389)]
    drops = [0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.001, 0.001, 0.001, 0.001]
    assert [replace(recipe, schedule="multistep").lr_at(step, 390) for step in steps] == pytest.approx(drops)
    cosine = [0.05 * (1 + math.cos(math.pi * (step // 390) / 50)) for step in steps]
    assert [recipe.lr_at(step, 390) for step in steps] == pytest.approx(cosine)
    assert (recipe.batch, recipe.epochs, recipe.momentum, recipe.weight_decay) == (128, 50, 0.9, 5e-4)


@pytest.mark.parametrize("widths", [(3, 2, 2), (16, 4, 1)])
def test_a_block_is_what_the_wide_network_computes_with_the_rest_at_zero(widths):
    wide, block = spiral_task((16, 16, 16)).build(3), spiral_task(widths).build(3)
    mask = Structure(widths).mask((16, 16, 16))
    with tb.attach(mask, wide):
        inputs = torch.randn(50, 2)
        assert torch.allclose(wide(inputs), block(inputs), atol=1e-6)
    assert max(p.abs().max() for p in block[3].parameters()) <= 0.25


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr("tombola.studies.sparsest.searching.TOGETHER", 12)


QUICK = Search(seeds=2, schedules=("constant",), lrs=(0.1,))


class Standin:
    """Trains nothing: a network reaches 96 % if it has so many weights and biases, and its seed is not the odd one."""

    def __init__(self, least: int, of: int = 3, groups: float = math.inf) -> None:
        self.least, self.of, self.groups = least, of, groups
        self.trained: list[tuple[str, int]] = []

    def __call__(self, task, members):
        if self.groups <= 0:
            raise KeyboardInterrupt
        self.groups -= 1
        model = task.build(0)
        self.trained += [(own.attached.digest, own.seed) for own in members]
        return [Trained(model, self.metric(own), 0.0, math.nan, 1, (), tb.training.Cost()) for own in members]

    def metric(self, own) -> float:
        hit = own.attached.total_kept >= self.least and own.seed % self.of == 0
        return 0.96 if hit else 0.6


def engine(tmp_path, **settings) -> Engine:
    return Engine(Store(tmp_path), **settings)


def test_the_search_finds_the_smallest_widths_and_then_the_fewest_weights(tmp_path):
    train = Standin(22)
    found = sparsest(QUICK, engine(tmp_path), train)
    assert found.dense.structure.size == found.dense.structure.weights + sum(found.dense.structure.widths) + 1 == 22
    assert found.found.structure == found.dense.structure
    assert found.ended == {"widths": True, "weights": True, "rates": True}
    assert "9" in found.sentence
    tried = [own for own in found.tried if own.structure.supports is None]
    assert max(own.structure.size for own in tried) < 40  # the first hit ended what costs more


def test_single_weights_are_left_out_where_fewer_will_do(tmp_path):
    class Fewer(Standin):
        def metric(self, own):
            masks = [own.attached[f"{layer}.weight"] for layer in (1, 3, 5)]
            whole = all(torch.equal(mask, mask.any(1)[:, None] & mask.any(0)) for mask in masks)
            return 0.96 if own.attached.total_kept >= (26 if whole else 23) else 0.6

    found = sparsest(replace(QUICK, seeds=1), engine(tmp_path), Fewer(26))
    assert found.dense.structure.size == 26
    assert found.found.structure.size == 23
    assert found.found.structure.widths == found.dense.structure.widths
    assert [own.hits(0.95) for own in found.tried if own.structure == found.found.structure] == [1]


def test_a_killed_search_goes_on_and_trains_nothing_twice(tmp_path):
    whole_way = Standin(30)
    expected = sparsest(QUICK, engine(tmp_path / "one"), whole_way)
    killed = Standin(30, groups=2)
    with pytest.raises(KeyboardInterrupt):
        sparsest(QUICK, engine(tmp_path / "two"), killed)
    going_on = Standin(30)
    found = sparsest(QUICK, engine(tmp_path / "two"), going_on)
    assert not set(killed.trained) & set(going_on.trained)
    assert (found.found.structure, found.tried) == (expected.found.structure, expected.tried)
    again = Standin(30)
    assert sparsest(QUICK, engine(tmp_path / "two"), again).tried == found.tried
    assert again.trained == []
    assert sparsest(QUICK, engine(tmp_path / "two", fresh=True), again).runs == len(again.trained) > 0


def test_a_line_that_a_kill_cut_short_is_tried_again_and_damage_is_named(tmp_path):
    done = sparsest(QUICK, engine(tmp_path), Standin(30))
    (path,) = tmp_path.rglob("tried.jsonl")
    whole_text = path.read_text()
    path.write_text(whole_text[:-20])
    again = Standin(30)
    assert sparsest(QUICK, engine(tmp_path), again).tried == done.tried
    assert len(again.trained) == 1
    path.write_text("{}\n" + whole_text)
    with pytest.raises(TombolaError, match=r"tried\.jsonl is damaged in line 1"):
        sparsest(QUICK, engine(tmp_path), again)


def test_when_the_time_is_up_the_answer_says_what_is_left_and_the_next_search_goes_on(tmp_path):
    out_of_time = sparsest(replace(QUICK, budget=1e-9), engine(tmp_path), Standin(22))
    assert out_of_time.ended == {"widths": False}
    assert out_of_time.found is None
    assert out_of_time.sentence.startswith("no network of 0 tried")
    assert sparsest(QUICK, engine(tmp_path), Standin(22)).found.structure.size == 22


def test_another_accuracy_goes_by_the_same_runs(tmp_path):
    sparsest(replace(QUICK, accuracy=0.95), engine(tmp_path), Standin(22))
    train = Standin(22)
    assert sparsest(replace(QUICK, accuracy=0.96), engine(tmp_path), train).found.structure.size == 22
    assert train.trained == []


def test_hit_rates_come_with_wilsons_interval(tmp_path):
    from statsmodels.stats.proportion import proportion_confint

    found = sparsest(replace(QUICK, seeds=12), engine(tmp_path), Standin(22))
    own = found.rate(found.found.structure)
    assert (own.hits(0.95), len(own.accuracies)) == (4, 12)
    assert own.rate(0.95)[1:] == pytest.approx(proportion_confint(4, 12, method="wilson"))
    with pytest.raises(TombolaError, match="at least one run"):
        tb.evidence.proportion(0, 0)


def test_the_studys_own_search_tries_every_structure_once(tmp_path):
    train = Standin(1000)
    found = whole("fixed-95", Search(), engine(tmp_path), train)
    assert found.runs == len(set(train.trained)) == 558 + 2_496
    assert found.found is None


@pytest.mark.parametrize(
    ("search", "says"),
    [
        (lambda: Search(accuracy=0.5), "above 0.5, which guessing reaches"),
        (lambda: Search(accuracy=95), "at most 1, as 0.95"),
        (lambda: Search(seeds=0), "give at least 1"),
        (lambda: Search(budget=0), "give a time above 0"),
        (lambda: Search(lrs=()), "at least one learning rate"),
        (lambda: settings((0.1,), ()), "one schedule"),
        (lambda: whole("random", Search(), None), "no search of the study 'random'"),
        (lambda: Structure.parse("3,3"), "'3,3' is no structure"),
        (lambda: Structure((1, 1, 1), ((4,), (1,), (1,))), "no support of 1×2 weights"),
        (lambda: zoo.spiral_block((17, 3, 3)), "three numbers from 1 to 16"),
    ],
)
def test_what_cannot_be_sought_is_refused(search, says):
    with pytest.raises(TombolaError, match=says):
        search()
