"""Selection: exact counts whatever the ties, nested, and the papers' layer densities."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola import GemMiner, Iterative, Mask, TombolaError, select
from tombola.methods import density_schedule
from tombola.tickets import TieWarning

SCOPES = ["global", "layerwise", "erk", "smart-ratio", "smart-ratio-vgg"]
INF = math.inf

WIDTHS = [16] * 7 + [32] * 6 + [64] * 6
RESNET20 = {f"conv{i}": (w, b, 3, 3) for i, (w, b) in enumerate(zip(WIDTHS, [3, *WIDTHS], strict=False))}
RESNET20["fc"] = (10, 64)

layer_shapes = st.dictionaries(
    st.text("abcxyz.", min_size=1, max_size=6),
    st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=5,
)
kinds = st.sampled_from(["normal", "constant", "few", "zeros", "infinite"])
densities = st.floats(0.02, 1.0) | st.sampled_from([1.0, 0.5, 0.25, 0.1])


def scores_of(shapes, kind: str = "normal", seed: int = 0, dtype=torch.float32) -> dict[str, torch.Tensor]:
    levels = {
        "constant": [0.25],
        "few": [0.0, 1.0, 2.0],
        "zeros": [0.0, -0.0],
        "infinite": [INF, -INF, 0.0, -0.0, 1.0],
    }
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        if kind == "normal":
            made[name] = torch.randn(shape, generator=generator, dtype=dtype)
        else:
            of = torch.tensor(levels[kind], dtype=dtype)
            made[name] = of[torch.randint(len(of), shape, generator=generator)]
    return made


def quiet(scores, density, **settings) -> Mask:
    """`select` where ties are expected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TieWarning)
        return select(scores, density, **settings)


def total(shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def half_even(density: float, size: int) -> int:
    return round(Fraction(density * size))


@settings(max_examples=250, deadline=None)
@given(layer_shapes, kinds, st.sampled_from(SCOPES), densities, st.integers(0, 3), densities, st.integers(0, 99))
def test_counts_are_exact_and_nested_whatever_ties_scope_floor_and_within(
    shapes, kind, scope, density, floor, earlier, seed
):
    scores, size = scores_of(shapes, kind, seed), total(shapes)
    room = {name: math.prod(shape) for name, shape in shapes.items()}
    within = None
    if half_even(earlier, size) >= 1:
        within = quiet(scores_of(shapes, "few", seed + 1), earlier)
        room = within.counts
    budget = half_even(density, size)
    floors = {name: min(floor, own) for name, own in room.items()}
    if budget < 1 or budget > sum(room.values()) or sum(floors.values()) > budget:
        with pytest.raises(TombolaError):
            quiet(scores, density, scope=scope, within=within, floor=floor)
        return
    mask = quiet(scores, density, scope=scope, within=within, floor=floor)
    assert mask.total_kept == budget
    assert mask.shapes == shapes
    assert within is None or mask <= within
    for name, count in mask.counts.items():
        assert floors[name] <= count <= room[name]
    for name in shapes:  # within a layer, nothing dropped is better than anything kept
        allowed = within[name] if within is not None else torch.ones(shapes[name], dtype=torch.bool)
        kept, dropped = scores[name][mask[name]], scores[name][allowed & ~mask[name]]
        assert not (len(kept) and len(dropped)) or dropped.max() <= kept.min()


@settings(max_examples=60, deadline=None)
@given(layer_shapes, kinds, densities, st.integers(0, 99))
def test_global_keeps_the_best_of_all_layers_and_counts_its_ties(shapes, kind, density, seed):
    scores, budget = scores_of(shapes, kind, seed), half_even(density, total(shapes))
    if budget < 1:
        return
    mask = quiet(scores, density)
    values = torch.cat([score.flatten() for score in scores.values()])
    kept = torch.cat([mask[name].flatten() for name in scores])
    threshold = values.sort(descending=True).values[budget - 1]
    assert kept[values > threshold].all()
    assert not kept[values < threshold].any()
    level = values == threshold
    assert mask.ties == (0 if kept[level].all() else int(kept[level].sum()))


@settings(max_examples=60, deadline=None)
@given(layer_shapes, st.data())
def test_explicit_densities_are_met_layer_by_layer(shapes, data):
    wanted = {name: data.draw(st.just(0.0) | st.floats(1e-6, 1), label=name) for name in shapes}
    shares = {name: wanted[name] * math.prod(shape) for name, shape in shapes.items()}
    if round(sum(shares.values())) < 1:
        return
    mask = quiet(scores_of(shapes, "few"), None, scope=wanted)
    assert abs(mask.total_kept - sum(shares.values())) <= 0.5 + 1e-6
    assert all(abs(mask.kept(name) - share) < 1 + 1e-6 for name, share in shares.items())


@settings(max_examples=15, deadline=None)
@given(layer_shapes, kinds, st.integers(0, 99))
def test_global_choices_of_the_same_scores_nest_by_themselves(shapes, kind, seed):
    scores, size = scores_of(shapes, kind, seed), total(shapes)
    masks = [quiet(scores, count / size) for count in range(1, size + 1)]
    assert all(small <= large for small, large in pairwise(masks))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("density", [0.9, 0.5, 0.2, 0.0144])
def test_no_scope_over_or_undershoots_on_a_real_network(scope, density):
    """Defects F8 and F9: 0.90 gave 0.914; ERK's 0.50 and 0.20 gave 0.43 and 0.186."""
    mask = select(scores_of(RESNET20), density, scope=scope)
    assert mask.size == 268_336
    assert mask.total_kept == round(density * 268_336)


@pytest.mark.parametrize("kind", ["constant", "few", "zeros"])
def test_ties_never_change_how_many_are_kept(kind):
    """Defect F14: with 90 % equal scores a threshold rule keeps 10 of 50 asked."""
    assert quiet(scores_of({"a": (10, 10)}, kind), 0.5).total_kept == 50
    scores = torch.cat([torch.arange(1.0, 11.0), torch.zeros(90)])
    mask = quiet({"a": scores[torch.randperm(100)]}, 0.5)
    assert mask.total_kept == 50
    assert mask.ties == 40


@pytest.mark.parametrize("density", [0.05, 0.3, 0.77])
def test_ties_do_not_depend_on_the_order_or_presence_of_layers(density):
    scores = scores_of({"a": (30, 4), "b": (77,), "c": (5, 5, 5)}, "constant")
    mask = quiet(scores, density)
    assert quiet(dict(reversed(scores.items())), density) == mask
    for name, count in mask.counts.items():
        alone = quiet({name: scores[name]}, count / scores[name].numel())
        assert torch.equal(alone[name], mask[name])


def test_ties_are_not_broken_by_position():
    kept = quiet(scores_of({"a": (1000,), "b": (1000,)}, "constant"), 0.5)
    assert 400 < kept.kept("a") < 600
    for name in kept:
        assert 400 < 1000 * kept[name][:500].float().sum() / kept.kept(name) < 600
    assert not torch.equal(kept["a"], kept["b"])


@pytest.mark.parametrize(("ties", "warned"), [(10, False), (11, True)])
def test_more_than_one_per_cent_of_ties_is_warned_of(ties, warned):
    scores = torch.arange(2000.0, 0.0, -1.0)
    scores[1000 - ties : 1005] = 1000.5
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask = select({"a": scores}, 0.5)
    assert mask.ties == ties
    assert [w.category for w in caught] == [TieWarning] * warned


def rigl(shapes, density: float) -> dict[str, float]:
    """ERK as in RigL's sparse_utils: solve for epsilon, make the worst offender dense, repeat."""
    sizes, dense = {name: math.prod(shape) for name, shape in shapes.items()}, set()
    while True:
        raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items() if name not in dense}
        left = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        epsilon = left / sum(raw[name] * sizes[name] for name in raw)
        if epsilon * max(raw.values()) <= 1:
            return {name: 1.0 if name in dense else epsilon * raw[name] for name in shapes}
        dense |= {name for name, value in raw.items() if value == max(raw.values())}


@pytest.mark.parametrize("density", [0.0144, 0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("shapes", [RESNET20, {"a": (300, 784), "b": (100, 300), "c": (10, 100)}])
def test_erk_is_rigls_rule_with_what_saturates_redistributed(shapes, density):
    mask = select(scores_of(shapes), density, scope="erk")
    for name, expected in rigl(shapes, density).items():
        assert abs(mask.kept(name) - expected * math.prod(shapes[name])) < 1.001


@pytest.mark.parametrize(
    ("scope", "percent"),
    [
        ("smart-ratio", "10.1 9.1 8.2 7.3 6.5 5.8 5.0 4.4 3.7 3.2 2.6 2.2 1.7 1.34 1.01 .72 .48 .29 .14 30"),
        ("erk", "14.9 4.25 4.25 4.25 4.25 4.25 4.25 3.02 1.96 1.96 1.96 1.96 1.96 1.42 .94 .94 .94 .94 .94 30.6"),
    ],
)
def test_reference_densities_of_resnet20_at_1_44_per_cent(scope, percent):
    shapes = RESNET20 | {"fc": (10, 64, 1, 1)}  # the reference's classifier is a 1×1 convolution
    mask = select(scores_of(shapes), 0.0144, scope=scope)
    for (name, shape), text in zip(shapes.items(), percent.split(), strict=True):
        half_digit = 0.51 * 10.0 ** -len(text.partition(".")[2])
        one_weight = 100 / math.prod(shape)
        assert abs(100 * mask.kept(name) / math.prod(shape) - float(text)) < half_digit + one_weight, name


def test_smart_ratio_hands_the_surplus_of_a_full_layer_to_the_next():
    """Su et al.: densities ∝ r² + r, the last layer 0.3; what exceeds 1 goes to the next layer in order."""
    shapes = {"a": (10,), "b": (100,), "c": (100,), "d": (100,), "fc": (10,)}
    budget = 160
    rungs = [30, 20, 12, 6]
    sizes = [10, 100, 100, 100]
    scale = (budget - 3) / sum(r * n for r, n in zip(rungs, sizes, strict=True))
    shares = [scale * r * n for r, n in zip(rungs, sizes, strict=True)]
    assert shares[0] > 10
    expected = [10, shares[1] + shares[0] - 10, shares[2], shares[3], 3]
    mask = select(scores_of(shapes), budget / 320, scope="smart-ratio")
    assert all(abs(count - share) < 1 for count, share in zip(mask.counts.values(), expected, strict=True))


def test_smart_ratio_for_vgg_divides_by_the_square_of_the_layers_number():
    shapes = {"a": (10000,), "b": (10000,), "c": (10000,), "fc": (100,)}
    counts = list(select(scores_of(shapes), 0.05, scope="smart-ratio-vgg").counts.values())
    assert counts[3] == 30
    ratios = [20 / 1, 12 / 4, 6 / 9]
    for count, ratio in zip(counts, ratios, strict=False):
        assert count == pytest.approx((1505 - 30) * ratio / sum(ratios), abs=1)


@pytest.mark.parametrize("half", [np.float32(0.5), np.float64(0.5), np.float16(0.5), torch.tensor(0.5), np.array(0.5)])
def test_a_density_may_come_out_of_numpy_or_a_tensor(half):
    assert select(TWO, half) == select(TWO, 0.5)
    assert select(TWO, None, scope=dict.fromkeys(TWO, half)) == select(TWO, 0.5, scope="layerwise")
    assert density_schedule.densities(half, 2) == density_schedule.densities(0.5, 2)
    assert type(GemMiner(half).density) is type(Iterative(half).density) is float


@pytest.mark.parametrize("one", [1, np.int64(1), torch.tensor(1)])
def test_a_density_of_one_may_be_a_whole_number(one):
    assert select(TWO, one).density == 1.0


def test_layerwise_gives_each_layer_the_same_density():
    mask = select(scores_of({"a": (33,), "b": (100, 7), "c": (5,)}), 0.3, scope="layerwise")
    assert mask.total_kept == round(0.3 * 738)
    for name, count in mask.counts.items():
        assert abs(count - 0.3 * math.prod(mask.shapes[name])) < 1


def test_floors_take_from_other_layers():
    scores = {"weak": torch.arange(10.0), "strong": torch.arange(100.0, 190.0)}
    assert select(scores, 0.2).counts == {"weak": 0, "strong": 20}
    floored = select(scores, 0.2, floor=3)
    assert floored.counts == {"weak": 3, "strong": 17}
    assert floored["weak"].nonzero().flatten().tolist() == [7, 8, 9]
    assert floored["strong"].nonzero().flatten().tolist() == list(range(73, 90))
    assert select(scores, 0.2, floor={"weak": 12}).counts == {"weak": 10, "strong": 10}


def test_within_may_name_its_layers_in_another_order():
    scores = scores_of({"a": (50,), "b": (20,)})
    within = select(scores_of({"b": (20,), "a": (50,)}, seed=5), 0.5)
    assert select(scores, 0.3, within=within) <= within


@pytest.mark.parametrize("scope", SCOPES)
def test_memory_layout_does_not_matter(scope):
    """Defect F4: a choice made through flattened memory goes wrong with channels_last."""
    scores = scores_of({"a": (8, 4, 3, 3), "b": (6, 8, 3, 3)})
    last = {name: score.to(memory_format=torch.channels_last) for name, score in scores.items()}
    turned = {name: score.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for name, score in scores.items()}
    mask = select(scores, 0.3, scope=scope)
    assert mask == select(last, 0.3, scope=scope) == select(turned, 0.3, scope=scope)
    assert set(np.unique(torch.cat([mask[n].flatten() for n in mask]).numpy())) == {False, True}


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_narrow_scores_choose_as_their_exact_values_do(narrow):
    scores = {name: score.to(narrow) for name, score in scores_of({"a": (40, 30), "b": (500,)}).items()}
    wide = {name: score.double() for name, score in scores.items()}
    assert quiet(scores, 0.2) == quiet(wide, 0.2)


def test_differences_that_only_float64_sees_decide():
    scores = {"a": 1 + torch.randperm(200).double() * 1e-13, "b": torch.zeros(3)}
    mask = select(scores, 100 / 203)
    assert mask.ties == 0
    assert torch.equal(mask["a"], scores["a"] > 1 + 99.5e-13)


def test_scores_are_read_only_and_may_want_gradients():
    scores = {"a": torch.rand(50, requires_grad=True)}
    before = scores["a"].detach().clone()
    select(scores, 0.5)
    assert torch.equal(scores["a"].detach(), before)


def million(kind: str) -> torch.Tensor:
    size = (1 << 20) + 70_001
    ramp = torch.arange(size, dtype=torch.float32)
    if kind == "sorted":
        return ramp
    if kind == "periodic":  # in step with any sample taken at regular places
        return (ramp % 17) * 1e5 + ramp / 17
    if kind == "mostly zero":
        return torch.where(torch.rand(size) < 0.03, torch.randn(size), 0.0)
    if kind == "infinite":
        return torch.where(torch.rand(size) < 0.4, INF, torch.randn(size))
    return torch.randn(size).bfloat16().float() if kind == "coarse" else torch.randn(size)


@pytest.mark.parametrize("kind", ["normal", "sorted", "periodic", "mostly zero", "coarse", "infinite"])
@pytest.mark.parametrize("density", [1e-5, 0.02, 0.5, 0.999])
def test_more_than_a_million_scores_are_chosen_as_a_full_sort_does(kind, density):
    values = million(kind).numpy()
    budget = round(density * values.size)
    kept = quiet({"a": torch.from_numpy(values)}, density)["a"].numpy()
    threshold = np.sort(values)[values.size - budget]
    assert np.count_nonzero(kept) == budget
    assert kept[values > threshold].all()
    assert not kept[values < threshold].any()


TWO = {"conv.weight": torch.arange(10.0), "fc.weight": torch.arange(10.0)}
NAN = {"conv.weight": torch.arange(10.0), "fc.weight": torch.tensor([1.0, math.nan])}


@pytest.mark.parametrize(
    ("scores", "density", "settings", "says"),
    [
        (NAN, 0.5, {}, "'fc.weight' contain NaN"),
        ({"a": torch.tensor([INF, -INF, math.nan])}, 0.5, {}, "'a' contain NaN"),
        (TWO, 0, {}, "density is 0"),
        (TWO, -0.1, {}, "density is -0.1"),
        (TWO, 1.0001, {}, "density is 1.0001"),
        (TWO, 90, {}, "density is 90"),
        (TWO, math.nan, {}, "density is nan"),
        (TWO, "0.1", {}, "density is 0.1"),
        (TWO, None, {}, "no density was given"),
        (TWO, 0.001, {}, "keeps not one of 20 units"),
        (TWO, 0.2, {"floor": 3}, "the floors ask for 6 units but density 0.2 keeps only 4"),
        (TWO, 0.2, {"floor": -1}, "a floor is negative"),
        (TWO, 0.2, {"floor": {"fc.wieght": 1}}, "did you mean 'fc.weight'"),
        (TWO, 0.2, {"scope": "gobal"}, "no scope 'gobal'; did you mean 'global'"),
        (TWO, 0.2, {"scope": "smartratio"}, "did you mean 'smart-ratio"),
        (TWO, None, {"scope": {"conv.weight": 0.5}}, "no density is given for layer 'fc.weight'"),
        (TWO, None, {"scope": {"conv.weight": 0.5, "fc.weight": 1.5}}, "density of layer 'fc.weight' is 1.5"),
        (TWO, None, {"scope": {"conv.weight": 0.5, "fc": 0.5}}, "no layer 'fc'"),
        (TWO, 0.9, {"scope": {"conv.weight": 0.1, "fc.weight": 0.1}}, "make the two agree"),
        (TWO, 0.6, {"within": Mask.of({n: t > 4 for n, t in TWO.items()})}, "`within` has only 10 left"),
        (TWO, 0.6, {"within": Mask.full({"other": (20,)})}, "`within` belongs to another network"),
        ({}, 0.5, {}, "nothing to select from"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_that_names_the_place(scores, density, settings, says):
    with pytest.raises(TombolaError) as caught:
        select(scores, density, **settings)
    text = str(caught.value)
    assert says in text
    assert "\n" not in text
    assert ". " not in text


@pytest.mark.parametrize("floor", [0, 1])
def test_a_large_layer_with_hardly_anything_left_is_chosen_from(floor):
    """A strided sample of it may hold none of what is alive."""
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        alive = torch.zeros(512 * 512).index_fill_(0, torch.randperm(512 * 512, generator=generator)[:20], 1.0)
        within = Mask.of({"a": alive.view(512, 512) > 0, "b": torch.ones(10) > 0})
        scores = {"a": torch.rand(512, 512, generator=generator), "b": torch.rand(10, generator=generator)}
        mask = select(scores, 15 / (512 * 512 + 10), within=within, floor=floor)
        assert mask.total_kept == 15
        assert mask <= within
