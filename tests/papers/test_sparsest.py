"""The sparsest network that learns: structures counted, the search, what it keeps, and what the user sees."""

from __future__ import annotations

import errno
import json
import math
import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from itertools import product
from unittest import mock

import numpy as np
import pytest
import torch

import tombola as tb
from tombola import TombolaError, zoo
from tombola.cli import main
from tombola.errors import FileError
from tombola.evidence import ACCURACY
from tombola.papers.spiral import (
    WHOLE,
    Fewest,
    FoundNetwork,
    Pruning,
    Search,
    SparsestNetwork,
    Structure,
    TriedStructure,
    hit_rates,
    how_many,
    pruned,
    refined,
    settings,
    sparsest,
    spiral_task,
    structured,
    supports,
    whole_search,
)
from tombola.papers.spiral.pruning_grid import with_biases
from tombola.papers.spiral.search_records import Records, Row
from tombola.papers.spiral.search_state import searching
from tombola.papers.spiral.spiral_page import _rates
from tombola.papers.spiral.structures import LAYERS, downwards
from tombola.studies import RECIPES, Engine, Store, narrow
from tombola.studies.core_pool import cores_for
from tombola.studies.execution import StaleWarning
from tombola.studies.narrowing import Blind, Narrowed, Point
from tombola.studies.spec import digest, task_settings
from tombola.testing import toy_task
from tombola.tickets import Mask
from tombola.training import Member, TaskWrapper, Trained, half_squared_error, train_together

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


@pytest.mark.parametrize("widths", [(4, 4, 4), (5, 3, 6), pytest.param((16, 16, 16), marks=pytest.mark.slow)])
def test_of_too_many_supports_some_of_each_count_are_drawn(widths):
    own = list(downwards(widths))
    assert 1000 < len({each.name for each in own}) == len(own) <= 5000
    weights = [each.weights for each in own]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == Structure(widths).weights
    assert set(range(weights[-1], weights[0] + 1)) == set(weights)
    assert own == list(downwards(widths))
    for each in own[:: len(own) // 50]:
        mask = each.mask(widths)
        for layer in LAYERS:
            assert mask[f"{layer}.weight"].any(0).all()
            assert mask[f"{layer}.weight"].any(1).all()


def test_of_many_supports_of_one_count_each_is_as_likely_as_any_other():
    """By the first layer's weights, of which the first in order would all be few."""
    existing = [own for own in refined((3, 3, 3)) if own.weights == 21]
    sample = [own for own in downwards((3, 3, 3), level=1000) if own.weights == 21]
    assert len(set(sample)) == len(sample) == 1000 < len(existing)
    assert set(sample) <= set(existing)
    shares = [Counter(sum(row.bit_count() for row in own.supports[0]) for own in each) for each in (existing, sample)]
    for weights, count in shares[0].items():
        share = count / len(existing)
        assert shares[1][weights] / 1000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 1000))


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
    monkeypatch.setattr("tombola.papers.spiral.search_state.TOGETHER", 12)


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
    return Engine(Store(tmp_path, **settings))


def test_the_search_finds_the_smallest_widths_and_then_the_fewest_weights(tmp_path):
    train = Standin(22)
    found = sparsest(QUICK, engine(tmp_path), train)
    assert found.dense.structure.size == found.dense.structure.weights + sum(found.dense.structure.widths) + 1 == 22
    assert found.found.structure == found.dense.structure
    assert found.ended == {"begin": True, "widths": True, "weights": True, "rates": True}
    assert found.sentence.startswith(f"{found.dense.structure.weights} weights and ")
    assert found.sentence.endswith(f", in {found.runs:,} runs")
    tried = [own for own in found.tried if own.structure.supports is None and len(set(own.structure.widths)) > 1]
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


def test_to_go_on_never_makes_the_answer_worse(tmp_path):
    """In the second round fewer widths learn it, but none of their supports: what was found inside others stays."""

    class Late(Standin):
        def metric(self, own):
            widths = tuple(own.attached.kept(f"{layer}.bias") for layer in LAYERS[:-1])
            early = widths == (3, 2, 2) and own.attached.total_kept >= 19
            late = widths == (2, 2, 2) and own.attached.total_kept == 21 and own.seed > 0
            return 0.96 if early or late else 0.6

    search = replace(QUICK, seeds=1)
    before = sparsest(search, engine(tmp_path), Late(0))
    after = sparsest(replace(search, seeds=2), engine(tmp_path), Late(0))
    assert (before.dense.structure.size, after.dense.structure.size) == (26, 21)
    assert before.found == after.found
    assert after.found.structure.size == 19
    assert {own.structure for own in before.tried} <= {own.structure for own in after.tried}


def test_no_more_runs_are_told_than_were_asked_for(tmp_path):
    small, other = Structure((3, 2, 2)), Structure((2, 2, 2))
    search = replace(QUICK, lrs=(0.05, 0.1), init=0)
    hit_rates({small: 3, other: 1}, search, engine(tmp_path), Standin(0))
    found = hit_rates({small: 1}, search, engine(tmp_path), Standin(0))
    assert [(own.structure, len(own.accuracies)) for own in found.tried] == [(small, 2)]
    once = whole_search("fixed-95", search, engine(tmp_path), Standin(0))
    assert {len(own.accuracies) for own in once.tried} == {2}


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


def test_where_nothing_can_be_written_one_sentence_says_so_and_nothing_is_lost(tmp_path, monkeypatch):
    path, row = tmp_path / "tried.jsonl", Row("3,2,2", 0, [0.6])
    records = Records(path, Row)
    path.mkdir()
    with pytest.raises(
        TombolaError, match=r"could not write .*tried\.jsonl: Is a directory; nothing that was there is lost"
    ):
        records.add([row])
    path.rmdir()
    records.add([row])
    path.write_text(path.read_text() + '{"structure": "3')
    content = path.read_text()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(TombolaError, match="No space left on device; nothing that was there is lost"):
            Records(path, Row)
    assert path.read_text() == content
    assert list(Records(path, Row).rows.values()) == [row]
    assert path.read_text() == content.rpartition("\n")[0] + "\n"


def test_when_the_time_is_up_the_answer_says_what_is_left_and_the_next_search_goes_on(tmp_path):
    out_of_time = sparsest(replace(QUICK, budget=1e-9), engine(tmp_path), Standin(22))
    assert out_of_time.ended == {"begin": False, "widths": False}
    assert out_of_time.found is None
    assert out_of_time.sentence.startswith("no network of 0 tried")
    assert sparsest(QUICK, engine(tmp_path), Standin(22)).found.structure.size == 22


def test_another_accuracy_goes_by_the_same_runs(tmp_path):
    sparsest(replace(QUICK, accuracy=0.95), engine(tmp_path), Standin(22))
    train = Standin(22)
    assert sparsest(replace(QUICK, accuracy=0.96), engine(tmp_path), train).found.structure.size == 22
    assert train.trained == []


def test_runs_count_for_a_lower_accuracy_though_their_values_were_not_kept(tmp_path):
    block = Structure((4, 3, 2))
    before = hit_rates({block: 3}, replace(QUICK, accuracy=0.99), engine(tmp_path), Standin(22))
    with searching(replace(QUICK, accuracy=0.95), engine(tmp_path), Standin(22)) as own:
        (tried,) = own.result(own.rows(), None, own.best(own.rows())).tried
    assert tried == before.tried[0]
    assert 0 < tried.hits(0.95) < len(tried.accuracies)
    wide = FoundNetwork(Structure((5, 5, 5)), 0.97, 0, settings((0.1,))[0], {})
    told = SparsestNetwork(0.95, wide, wide, (tried,), {}, 0, 0.0).sentence
    assert "; 1 of 1 smaller ones that were tried did, whose values were not kept" in told


def test_hit_rates_come_with_wilsons_interval(tmp_path):
    from statsmodels.stats.proportion import proportion_confint

    found = sparsest(replace(QUICK, seeds=12), engine(tmp_path), Standin(22))
    (own,) = (each for each in found.tried if each.structure == found.found.structure)
    assert (own.hits(0.95), len(own.accuracies)) == (4, 12)
    assert own.rate(0.95)[1:] == pytest.approx(proportion_confint(4, 12, method="wilson"))
    with pytest.raises(TombolaError, match="at least one run"):
        tb.evidence.proportion(0, 0)


def test_the_studys_own_search_tries_every_structure_once(tmp_path):
    train = Standin(1000)
    found = whole_search("fixed-95", Search(), engine(tmp_path), train)
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
        (lambda: whole_search("random", Search(), None), "no search of the study 'random'"),
        (lambda: Structure.parse("3,3"), "'3,3' is no structure"),
        (lambda: Structure((1, 1, 1), ((4,), (1,), (1,))), "no support of 1×2 weights"),
        (lambda: zoo.spiral_block((17, 3, 3)), "three numbers from 1 to 16"),
    ],
)
def test_what_cannot_be_sought_is_refused(search, says):
    with pytest.raises(TombolaError, match=says):
        search()


FAST = replace(RECIPES["cubist-spiral"], epochs=1, batch=8192)


def test_networks_are_really_trained_and_the_one_found_computes_what_it_did(tmp_path):
    search = replace(QUICK, accuracy=0.51, recipe=replace(FAST, epochs=2, batch=256))
    done = hit_rates({Structure((16, 16, 16)): 6, Structure((4, 3, 2)): 1}, search, engine(tmp_path))
    assert done.found is not None
    inputs, targets = zoo.data("cubist-spiral")["train"]
    right = ((done.found.network()(inputs)[:, 0] > 0) == targets.bool()).float().mean()
    assert float(right) == pytest.approx(done.found.accuracy, abs=1e-6)
    again = hit_rates({Structure((4, 3, 2)): 1}, search, engine(tmp_path))
    assert again.runs == 0
    assert again.tried == tuple(own for own in done.tried if own.structure == Structure((4, 3, 2)))


@pytest.mark.slow
def test_on_several_cores_it_finds_what_it_finds_on_one(tmp_path, monkeypatch):
    search, wanted = replace(QUICK, accuracy=0.51, recipe=FAST), {Structure((3, 2, 2)): 14, Structure((4, 3, 2)): 14}
    one = hit_rates(wanted, search, engine(tmp_path / "one"))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    assert cores_for(torch.device("cpu")) == 2
    two = hit_rates(wanted, search, engine(tmp_path / "two"))
    assert (two.tried, two.runs, two.ended) == (one.tried, one.runs, one.ended)


def test_a_structure_trains_as_it_would_inside_a_wider_network():
    """What stands around its block changes nothing."""
    task, wider = spiral_task((3, 2, 2), FAST), spiral_task((5, 4, 3), FAST)
    structure = Structure((3, 2, 2), ((3, 2, 1), (6, 1), (3, 1)))
    own, other = (
        train_together(each, [Member(seed, structure.mask(widths)) for seed in range(2)])
        for each, widths in ((task, (3, 2, 2)), (wider, (5, 4, 3)))
    )
    for one, two in zip(own, other, strict=True):
        assert one.metric == pytest.approx(two.metric, abs=1e-3)
        for small, large in zip(one.model.parameters(), two.model.parameters(), strict=True):
            assert torch.allclose(small, large[tuple(slice(size) for size in small.shape)], atol=1e-5)


def test_a_hidden_bias_goes_with_the_weights_out_of_its_unit():
    mask = {f"{layer}.weight": torch.ones(2, 2, dtype=torch.bool) for layer in LAYERS[:-1]}
    mask["7.weight"] = torch.tensor([[True, False]])
    mask["3.weight"][:, 0] = False
    mask["5.weight"][1] = False  # without inputs, but its bias goes on
    kept = with_biases(Mask.of(mask))
    assert [kept[f"{layer}.bias"].tolist() for layer in LAYERS] == [
        [False, True],
        [True, True],
        [True, False],
        [True],
    ]


GRID = Pruning(("snip", "random", "imp"), (40, 300), lrs=(0.1,), schedules=("constant",), recipe=FAST)


def test_pruning_keeps_what_is_asked_for_and_trains_nothing_twice(tmp_path, monkeypatch):
    found = pruned(GRID, engine(tmp_path))
    assert [own.method for own in found] == list(GRID.methods)
    assert all([cell.weights for cell in own.cells] == [40, 300] for own in found)
    assert all(40 < own.cells[0].size <= 40 + 49 for own in found)
    monkeypatch.setattr("tombola.papers.spiral.pruning_grid.train_together", None)
    assert pruned(replace(GRID, methods=("snip",)), engine(tmp_path)) == found[:1]
    few, many = (replace(cell, accuracy=accuracy) for cell, accuracy in zip(found[0].cells, (0.7, 0.9), strict=True))
    own = replace(found[0], cells=(many, few))
    assert (own.reaching(0.6), own.reaching(0.8)) == (few, many)
    assert found[0].reaching(1.0) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tombola.tickets.TieWarning")
def test_a_ticket_that_diverges_counts_as_guessing_and_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    grid = replace(GRID, requests=(300,), lrs=(0.1, 1e20), recipe=replace(FAST, batch=1024))
    grid = replace(grid, methods=("snip", "imp", "gradual", "prospr"))
    found = pruned(grid, engine(tmp_path / "both"))
    assert [(own.cells[1].accuracy, own.cells[1].asked, own.left) for own in found] == [(0.5, 300, 0)] * 4
    alone = pruned(replace(grid, methods=("imp", "gradual"), lrs=(0.1,)), engine(tmp_path / "one"))
    for own, other in zip(found[1:3], alone, strict=True):
        assert own.cells[0].weights == other.cells[0].weights == 300
        assert other.cells[0].accuracy > 0.52
        assert own.cells[0].accuracy == pytest.approx(other.cells[0].accuracy, abs=2e-3)


def test_tickets_that_their_search_trains_are_kept_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    grid, sought = replace(GRID, methods=("gradual",), requests=(100, 200, 300)), []

    def counted(task, method, run):
        if len(sought) == 2:
            raise KeyboardInterrupt
        sought.append(method)
        return tb.find(task, method, run=run)

    with monkeypatch.context() as patch:
        patch.setattr("tombola.papers.spiral.pruning_grid.find", counted)
        with pytest.raises(KeyboardInterrupt):
            pruned(grid, engine(tmp_path))
    (kept,) = pruned(grid, engine(tmp_path), 1e-9)
    assert ([cell.asked for cell in kept.cells], kept.left) == ([100, 200], 1)
    (whole_search,) = pruned(grid, engine(tmp_path))
    assert (whole_search.cells[:2], whole_search.left) == (kept.cells, 0)


def test_what_another_source_made_is_said_and_what_other_settings_made_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    grid, triple = replace(GRID, methods=("imp",)), Structure((2, 2, 2))
    (before,) = pruned(grid, engine(tmp_path))
    hit_rates({triple: 2}, QUICK, engine(tmp_path), Standin(0))
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["tombola.studies.execution"], "source_digest", lambda: "another")
        with pytest.warns(StaleWarning, match="2 of 2 results were made by another version"):
            assert pruned(grid, engine(tmp_path)) == [before]
        with pytest.warns(StaleWarning, match="2 of 2 results"):
            assert hit_rates({triple: 2}, QUICK, engine(tmp_path), Standin(0)).runs == 0
    monkeypatch.setattr(
        "tombola.papers.spiral.pruning_grid.as_studied", lambda name, density, _: tb.Iterative(density, count=2)
    )
    assert pruned(grid, engine(tmp_path), 1e-9) == [replace(before, cells=(), left=2)]


def test_pruning_iteratively_together_is_what_the_method_does_alone(tmp_path):
    (own,) = pruned(replace(GRID, methods=("imp",), requests=(500,)), engine(tmp_path))
    task = replace(spiral_task((16, 16, 16), FAST), recipe=replace(FAST, lr=0.1, schedule="constant"))
    ticket = tb.find(task, tb.Iterative(500 / 560, count=4), seed=0, progress=False)
    assert own.cells[0].accuracy == pytest.approx(tb.train(task, ticket, seed=0).metric, abs=2e-3)


@pytest.mark.slow
def test_sparse_training_is_measured_as_it_was_left(tmp_path):
    recipe = replace(FAST, batch=128)
    (own,) = pruned(replace(GRID, methods=("rigl",), requests=(300,), recipe=recipe), engine(tmp_path))
    assert own.cells[0].weights == 300
    assert own.best > 0.6


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({"requests": (560,)}, "numbers from 1 to 559"),
        ({"requests": ()}, "at least one number of weights"),
        ({"methods": ("layer-snip",)}, "does not keep exactly"),
        ({"methods": ("snp",)}, "did you mean 'snip'"),
    ],
)
def test_a_grid_that_cannot_be_pruned_is_refused(grid, says):
    with pytest.raises(TombolaError, match=says):
        replace(GRID, **grid)


class Watched(TaskWrapper):
    """A task that counts the readings of its test split."""

    read = 0

    @property
    def data_digest(self):
        return self.task.data_digest

    def batches(self, split, seed, epoch):
        Watched.read += split == "test"
        return self.task.batches(split, seed, epoch)


def test_densities_are_chosen_without_the_test_split(tmp_path, monkeypatch):
    monkeypatch.setattr("tombola.studies.narrowing.compare", lambda *_, **__: None)
    Watched.read = 0
    own = narrow(Watched(toy_task()), tb.method("magnitude-init"), engine(tmp_path), densities=(0.8, 0.3), seeds=2)
    assert [len(each.differences) for each in own.points[:2]] == [2, 2]
    assert Watched.read == 0


def error_rate(outputs, targets):
    return (outputs.argmax(-1) != targets).float().mean()


def squared_error(outputs, targets):
    return (outputs.softmax(-1).gather(1, targets[:, None]) - 1).square().mean() * 100


def test_an_error_rate_has_the_same_sparsest_ticket_as_accuracy(tmp_path, monkeypatch):
    monkeypatch.setattr("tombola.studies.narrowing.compare", lambda *_, **__: None)
    how = {"tolerance": 0.1, "densities": (0.9, 0.5, 0.05), "halvings": 2, "seeds": 2}
    method, other = tb.method("magnitude-init"), replace(toy_task(), metric=error_rate)
    merit = narrow(toy_task(), method, engine(tmp_path / "a"), **how)
    error = narrow(other, method, engine(tmp_path / "b"), **how)
    assert [(own.density, own.within) for own in error.points] == [(own.density, own.within) for own in merit.points]
    assert {own.within for own in merit.points} == {True, False}
    for one, mirrored in zip(merit.points, error.points, strict=True):
        assert one.differences == pytest.approx([-own for own in mirrored.differences], abs=1e-6)
    assert "within 10 points of dense" in error.sentence


def test_of_a_metric_that_is_no_share_the_spread_of_dense_is_the_tolerance(tmp_path, monkeypatch):
    monkeypatch.setattr("tombola.studies.narrowing.compare", lambda *_, **__: None)
    task = replace(toy_task(), metric=squared_error)
    found = narrow(task, tb.method("magnitude-init"), engine(tmp_path), densities=(0.8, 0.1), halvings=0, seeds=2)
    assert found.measure.lower
    assert found.tolerance > 0
    assert "points" not in found.sentence
    assert all(own.within == (own.mean <= found.tolerance) for own in found.points if own.mean is not None)
    with pytest.raises(TombolaError, match="one seed shows no spread of squared-error; give a tolerance"):
        narrow(task, tb.method("snip"), engine(tmp_path), seeds=1)


@dataclass(frozen=True)
class Plain(TaskWrapper):
    """A task that does not say what its data are."""


@pytest.mark.parametrize("of", [Blind, Plain, lambda task: Blind(Plain(task))], ids=["blind", "plain", "both"])
def test_what_the_blind_task_comes_to_is_named_by_all_of_its_data_and_its_loss(of):
    """The pixels that differ are those that PyTorch leaves out when it prints."""
    task = toy_task()
    changed = {split: (inputs.clone(), targets) for split, (inputs, targets) in task.data.items()}
    for inputs, _ in changed.values():
        inputs[len(inputs) // 2 :] *= 0.5

    def named(task: tb.SupervisedTask) -> str:
        return digest(task_settings(of(task), 0, torch.device("cpu")))

    others = [replace(task, data=changed), replace(task, loss=half_squared_error), replace(task, metric=len)]
    assert len({named(task), *map(named, others)}) == 4
    assert digest(task_settings(task, 0, torch.device("cpu"))) != named(task) == named(replace(task))


def point(density: float, difference: float) -> Point:
    return Point(density, (difference, difference), difference >= -0.005)


def test_the_answer_says_what_was_tried_and_where_accuracy_does_not_just_fall():
    own = Narrowed("imp", 0.005, (point(0.5, 0.0), point(0.2, -0.01), point(0.1, 0.001), point(0.05, -0.2)), ACCURACY)
    assert own.density == 0.1
    assert [each.density for each in own.exceptions] == [0.2]
    assert "keeps 0.1; the next sparser one, 0.05, is not; denser ones are not, though (0.2)" in own.sentence
    nothing = Narrowed("imp", 0.005, (point(0.5, -0.1), point(0.2, -0.2)), ACCURACY)
    assert nothing.sentence.startswith("no ticket of imp is within 0.5 points")
    assert "no sparser one was tried" in Narrowed("imp", 0.005, (point(0.5, 0.0),), ACCURACY).sentence


def test_the_gap_below_the_sparsest_is_halved(tmp_path, monkeypatch):
    monkeypatch.setattr("tombola.studies.narrowing.compare", lambda *_, **__: None)

    def made_up(task, blind, method, *_):
        return point(method.density, 0.0 if method.density > 0.11 else -1.0)

    monkeypatch.setattr("tombola.studies.narrowing._point", made_up)
    found = narrow(toy_task(), tb.method("snip"), engine(tmp_path), densities=(0.4, 0.1), halvings=3)
    assert [own.density for own in found.points] == pytest.approx([0.4, 0.1, 0.2, 0.1414, 0.1189], abs=1e-4)
    assert found.density == pytest.approx(0.1189, abs=1e-4)


def test_a_file_in_use_is_no_density_that_cannot_be_had(tmp_path, monkeypatch):
    def made_up(task, blind, method, *_):
        if method.density < 0.2:
            raise FileError("the folder is in use by another process; wait for it")
        return point(method.density, 0.0)

    monkeypatch.setattr("tombola.studies.narrowing._point", made_up)
    with pytest.raises(TombolaError, match="in use by another process"):
        narrow(toy_task(), tb.method("snip"), engine(tmp_path), densities=(0.4, 0.1), halvings=0)


def test_densities_that_cannot_be_had_say_why_and_count_as_not_good_enough(tmp_path, monkeypatch):
    monkeypatch.setattr("tombola.studies.narrowing.compare", lambda *_, **__: None)
    least = 0.11

    def made_up(task, blind, method, *_):
        if method.density < least:
            raise TombolaError(f"{method.density:.4g} is too little; give more")
        return point(method.density, 0.0)

    monkeypatch.setattr("tombola.studies.narrowing._point", made_up)
    found = narrow(toy_task(), tb.method("snip"), engine(tmp_path), densities=(0.4, 0.1, 0.05), halvings=3)
    assert [own.density for own in found.points] == pytest.approx([0.4, 0.1, 0.05, 0.2, 0.1414, 0.1189], abs=1e-4)
    assert [own.why for own in found.points if own.mean is None] == ["0.1 is too little; give more", mock.ANY]
    assert found.exceptions == ()
    assert "keeps 0.1189; the next sparser one, 0.1, cannot be had (6 densities tried, of which 0.1" in found.sentence
    least = 1.0
    with pytest.raises(TombolaError, match=r"0\.4 is too little; give more"):
        narrow(toy_task(), tb.method("snip"), engine(tmp_path), densities=(0.1, 0.4))


def standin(monkeypatch, least: int) -> Standin:
    """What trains groups in the command."""
    own = Standin(least)
    monkeypatch.setattr("tombola.papers.spiral.search_state.train_together", lambda task, nets, run: own(task, nets))
    return own


def test_the_command_draws_what_it_found_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tombola.papers.spiral.search_state.TOGETHER", 240)
    train = standin(monkeypatch, 22)
    assert main(["sparsest", "--seeds", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["found"]["weights"] + told["found"]["biases"] == 22
    assert told["ended"] == {"begin": True, "widths": True, "weights": True, "rates": True}
    assert sum(own["runs"] for own in told["tried"]) == told["runs"] == len(train.trained)
    page = (tmp_path / told["report"]).read_text()
    assert told["sentence"][1:] in page
    assert set(re.findall(r'data-chart="(\w+)"', page)) == {"network", "boundary", "rates"}
    assert len(json.loads((tmp_path / "runs/sparsest/sparsest.json").read_text())["tried"]) == len(told["tried"])
    drawn = (tmp_path / "runs/sparsest/network.svg").read_text()
    assert drawn.count('aria-roledescription="circle"') == 3 + sum(told["found"]["widths"])
    assert drawn.count('aria-roledescription="rule mark"') == told["found"]["weights"]
    again = len(train.trained)
    assert main(["sparsest", "--seeds", "1"]) == 0
    out = capsys.readouterr().out
    assert told["sentence"][1:] in out.replace("\n", " ")
    assert len(train.trained) == again


@pytest.mark.slow
def test_the_command_prunes_beside_the_search(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    standin(monkeypatch, 22)
    words = ["--pruning", "random", "--requests", "40", "--recipe.epochs", "1", "--recipe.batch", "8192"]
    assert main(["sparsest", "--seeds", "1", "--budget", "5s", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(own["method"], own["runs"]) for own in told["pruning"]] == [("random", 9)]
    assert 'data-chart="pruned"' in (tmp_path / told["report"]).read_text()


def test_the_budget_is_for_search_and_pruning_and_the_studys_own_search_has_none(monkeypatch, tmp_path, capsys):
    budgets = {}

    def noted(name):
        def instead(*given):
            budgets[name] = next(own.budget for own in given if isinstance(own, Search))
            return SparsestNetwork(0.95, None, None, (), {"begin": False}, 0, 0.0)

        return instead

    def left(grid, engine, budget):
        budgets["pruned"] = budget
        return [Fewest("snip", (), 72)]

    monkeypatch.chdir(tmp_path)
    for name in ("sparsest", "whole_search"):
        monkeypatch.setattr(f"tombola.cli.sparsest.{name}", noted(name))
    monkeypatch.setattr("tombola.cli.sparsest.pruned", left)
    monkeypatch.setattr("tombola.cli.sparsest.write_sparsest", lambda *_, **__: tmp_path)
    assert main(["sparsest", "--pruning", "snip", "--budget", "2h"]) == 0
    assert "There was no time for 72 tickets" in capsys.readouterr().out
    assert budgets["sparsest"] == 3600 < budgets["pruned"] <= 7200
    assert main(["sparsest"]) == main(["sparsest", "--whole", "fixed-95"]) == 0
    assert (budgets["sparsest"], budgets["whole_search"]) == (300, math.inf)
    assert main(["sparsest", "--whole", "fixed-95", "--budget", "1h"]) == 0
    assert budgets["whole_search"] == 3600


def test_the_answers_stand_in_the_table_however_many_smaller_ones_reached_it():
    tried = [TriedStructure(own, (0.96,)) for own in structured(4)]
    dense = FoundNetwork(tried[40].structure, 0.96, 0, settings((0.1,))[0], {})
    table = _rates(
        SparsestNetwork(0.95, replace(dense, structure=tried[0].structure), dense, tuple(tried), {}, 0, 0.0), 12
    )
    assert [row[0] for row in table.rows] == [own.structure.name for own in (*tried[:11], tried[40])]
    assert table.marked == {0, 11}


@pytest.mark.usefixtures("without_pictures")
def test_the_sparsest_ticket_of_a_method_is_found_checked_and_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    task = ["--data", "digits", "--model", "lenet-300-100", "--width", "0.1", "--recipe.epochs", "1"]
    words = ["sparsest", "magnitude-init", *task, "--seeds", "2", "--halvings", "1"]
    words += ["--densities", "0.6", "0.01", "1e-5", "--tolerance", "10", "--controls", "random"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["density"] in [own["density"] for own in told["tried"]]
    assert len(told["tried"]) == 4
    missing = next(own for own in told["tried"] if own["why"])
    assert (missing["density"], missing["mean"], missing["differences"]) == (1e-5, None, [])
    assert "of which 1e-05 cannot be had: density 1e-05 keeps not one of" in told["sentence"]
    assert told["verdicts"][0]["density"] == told["density"]
    assert "1e-05 cannot be had" in (tmp_path / told["report"]).read_text()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "magnitude-init: ticket minus dense" in out
    assert "cannot be had: density" in out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == stamps


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--accuracy", "1.2"], "at most 1, as 0.95"),
        (["--accuracy", "0.4"], "which guessing reaches"),
        (["--budget", "soon"], "'soon' is no time; give one as 90s, 5min or 2h, or none"),
        (["--seeds", "0"], "seeds is 0"),
        (["--whole", "random"], "no search of the study 'random'"),
        (["--whole", "fixed-95", "--accuracy", "0.95"], "leave --accuracy and --seeds out"),
        (["--whole", "fixed-95", "--seeds", "20"], "leave --accuracy and --seeds out"),
        (["--recipe.lr", "0.5"], "leave --recipe.lr and --recipe.schedule out"),
        (["--recipe.schedule", "constant"], "leave --recipe.lr and --recipe.schedule out"),
        (["--country", "DEU"], "leave --country out"),
        (["--pruning", "snip", "--requests", "600"], "numbers from 1 to 559"),
        (["--pruning", "layer-snip"], "does not keep exactly"),
        (["snip", "grasp"], "give one method"),
        (["snp"], "did you mean 'snip'"),
        (["layer-snip"], "counts the blocks that go"),
        (["snip", "--tolerance", "-1"], "0 or more, as 0.5"),
        (["snip", "--tolerance", "200"], "below 1"),
        (["snip", "--densities", "1.5"], "above 0 and below 1"),
        (["snip", "--densities"], "there is no density to try"),
        (["snip", "--seeds", "0"], "give at least 0 and 1"),
    ],
)
def test_bad_words_get_one_sentence(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sparsest", *words]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


def test_values_of_another_structure_are_not_believed():
    values = {
        f"{1 + 2 * layer}.weight": [[0.0] * columns] * rows
        for layer, (columns, rows) in enumerate(((2, 1), (1, 1), (1, 1), (1, 1)))
    }
    values |= {f"{1 + 2 * layer}.bias": [0.0] for layer in range(4)}
    assert Row("1,1,1", 0, [1.0], values).values == values
    for wrong in ({}, values | {"1.bias": [0.0, 1.0]}, values | {"x": [1.0]}, values | {"1.bias": ["x"]}):
        with pytest.raises(ValueError, match=r"values|float"):
            Row("1,1,1", 0, [1.0], wrong)
