"""A mask is immutable data: exact, small, and closed under set operations."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola import Mask, TombolaError

STRICT = ("__or__", "__xor__", "__sub__", "__le__", "distance")
SHAPES = st.dictionaries(
    st.sampled_from(["a.weight", "b.weight", "head", "x/y", "ü"]),
    st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=3,
)


def bits(shapes: dict[str, tuple[int, ...]], seed: int, share: float = 0.5) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return {name: torch.from_numpy(np.asarray(rng.random(shape) < share)) for name, shape in shapes.items()}


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(0, 2**32), st.integers(0, 2**32))
def test_masks_are_sets_of_positions(shapes, one, two):
    a, b = bits(shapes, one), bits(shapes, two)
    mine, other = Mask.of(a), Mask.of(b)
    size = sum(t.numel() for t in a.values())
    for name in shapes:
        assert mine[name].dtype == torch.bool
        assert torch.equal(mine[name], a[name])
        assert torch.equal((~mine)[name], ~a[name])
        assert torch.equal((mine & other)[name], a[name] & b[name])
        assert torch.equal((mine | other)[name], a[name] | b[name])
        assert torch.equal((mine ^ other)[name], a[name] ^ b[name])
        assert torch.equal((mine - other)[name], a[name] & ~b[name])
        assert mine.kept(name) == mine.counts[name] == int(a[name].sum())
    assert mine.density == sum(int(t.sum()) for t in a.values()) / size
    assert (~mine).total_kept == size - mine.total_kept
    assert ~~mine == mine
    assert (mine <= other) == all(bool((~a[n] | b[n]).all()) for n in shapes)
    assert mine & other <= mine <= mine | other
    assert mine.distance(other) == other.distance(mine) == sum(int((a[n] ^ b[n]).sum()) for n in shapes) / size
    assert mine.distance(mine) == 0
    assert mine.distance(~mine) == 1


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(0, 2**32))
def test_equality_hash_digest_and_copies_agree(shapes, seed):
    mask = Mask.of(bits(shapes, seed), ties=3)
    for twin in (copy.deepcopy(mask), copy.copy(mask), pickle.loads(pickle.dumps(mask)), Mask.of(dict(mask))):
        assert twin == mask
        assert hash(twin) == hash(mask)
        assert twin.digest == mask.digest
    assert pickle.loads(pickle.dumps(mask)).ties == 3
    name = next(iter(shapes))
    flipped = dict(mask)
    flipped[name].view(-1)[-1] ^= True
    assert Mask.of(flipped) != mask
    assert Mask.of(flipped).digest != mask.digest


def test_shape_and_name_count_for_equality():
    flat = Mask.of({"a": torch.tensor([True, False, True, True])})
    square = Mask.of({"a": torch.tensor([[True, False], [True, True]])})
    renamed = Mask.of({"b": torch.tensor([True, False, True, True])})
    assert len({flat, square, renamed}) == 3
    assert len({flat.digest, square.digest, renamed.digest}) == 3
    assert flat != "a mask"


def test_order_of_layers_does_not_count():
    a, b = torch.tensor([True]), torch.tensor([False, True])
    one, two = Mask.of({"a": a, "b": b}), Mask.of({"b": b, "a": a})
    assert one == two
    assert hash(one) == hash(two)


def test_indexing_gives_a_fresh_tensor():
    source = {"a": torch.tensor([True, False, True])}
    mask = Mask.of(source)
    digest = mask.digest
    mask["a"].zero_()
    mask["a"][:] = True
    source["a"].zero_()
    assert mask["a"].tolist() == [True, False, True]
    assert mask.digest == digest


def test_a_mask_cannot_be_changed():
    mask = Mask.of({"a": torch.tensor([True])})
    with pytest.raises(TypeError):
        mask["a"] = torch.tensor([False])
    with pytest.raises(TypeError):
        mask.bits["a"] = mask.bits["a"]
    with pytest.raises(TypeError):
        del mask["a"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        mask.bits = {}


def test_a_mask_of_float_tensors_keeps_what_is_not_zero():
    assert Mask.of({"a": torch.tensor([0.0, -0.0, -2.0, 0.5])})["a"].tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint16, torch.complex64],
)
def test_a_mask_of_a_type_that_numpy_lacks_keeps_what_is_not_zero(dtype):
    values = torch.tensor([[0.0, 1.0], [2.0, 0.0]]).to(dtype)
    assert Mask.of({"w": values})["w"].tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    "odd",
    [
        torch.zeros(2, device="meta"),
        torch.eye(2).to_sparse(),
        torch.zeros(2).to(torch.float8_e5m2).view(torch.bits8),
        np.ones(2),
        [True, False],
    ],
)
def test_what_has_no_truths_or_numbers_is_refused_by_its_name(odd):
    with pytest.raises(TombolaError, match=f"no mask can be made of 'fc.weight', a {type(odd).__name__}"):
        Mask.of({"fc.weight": odd})


def test_asking_for_a_name_unpacks_nothing(monkeypatch):
    mask = Mask.full({"w": (3, 2)})
    monkeypatch.delattr("tombola.tickets.mask.Bits.array")
    assert "w" in mask
    assert "w" in mask.keys()  # noqa: SIM118
    assert "v" not in mask
    assert 3 not in mask


def test_memory_is_one_bit_a_weight():
    mask = Mask.full({"a": (1000, 801), "b": (3,)})
    assert sum(len(own.packed) for own in mask.bits.values()) == 1000 * 801 // 8 + 1
    assert len(pickle.dumps(mask)) < 801_003 / 8 + 2000
    assert sum(sys.getsizeof(own.packed) for own in mask.bits.values()) < 801_003 / 8 + 200


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(0, 2**32), st.integers(0, 2**32))
def test_shuffling_keeps_each_layers_count(shapes, seed, shuffle):
    mask = Mask.of(bits(shapes, seed))
    shuffled = mask.shuffled(shuffle)
    assert shuffled.counts == mask.counts
    assert shuffled.shapes == mask.shapes
    assert shuffled == mask.shuffled(shuffle)


def test_shuffling_changes_the_bits_of_every_layer_and_by_seed():
    """Defect F3: a shuffle that only rebinds a local changes nothing."""
    mask = Mask.of(bits({"a": (64, 64), "b": (64, 32)}, 0, share=0.3))
    one, two = mask.shuffled(1), mask.shuffled(2)
    for name in mask:
        agreement = (one[name] == mask[name]).float().mean().item()
        assert 0.5 < agreement < 0.66  # chance: 0.3² + 0.7² = 0.58
        assert not torch.equal(one[name], two[name])


def test_shuffling_does_not_move_kept_positions_together_between_layers():
    same = torch.arange(400) < 100
    shuffled = Mask.of({"a": same, "b": same}).shuffled(0)
    assert not torch.equal(shuffled["a"], shuffled["b"])


def test_shuffling_leaves_the_global_random_state_alone():
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    Mask.full({"a": (10,)}).shuffled(3)
    assert (np.random.get_state()[1] == before).all()
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_collapsed_layers_are_named():
    mask = Mask.of({"a": torch.tensor([False, False]), "b": torch.tensor([True]), "c": torch.zeros(2, 2).bool()})
    assert mask.collapsed == ("a", "c")
    assert Mask.full({"a": (3,)}).collapsed == ()


def test_full_keeps_everything_of_parameters_or_shapes():
    full = Mask.full({"a": torch.zeros(2, 3), "b": (9,)})
    assert full.density == 1
    assert full.shapes == {"a": (2, 3), "b": (9,)}


def test_channels_last_bits_keep_their_places():
    kept = torch.rand(4, 3, 3, 3) < 0.5
    assert torch.equal(Mask.of({"a": kept.to(memory_format=torch.channels_last)})["a"], kept)


@pytest.mark.parametrize(
    ("operation", "other"),
    [
        *itertools.product(["__and__", *STRICT], [{"a": (2, 2)}, {"b": (4,)}]),
        *itertools.product(STRICT, [{"a": (4,), "b": (1,)}]),
    ],
)
def test_masks_of_two_networks_do_not_mix(operation, other):
    with pytest.raises(TombolaError, match=r"do not belong to one network: '[ab]'"):
        getattr(Mask.full({"a": (4,)}), operation)(Mask.full(other))


def test_what_one_of_two_masks_does_not_name_is_whole_in_it():
    weights = Mask.of({"a": torch.tensor([True, False, True])})
    channels = Mask.of({"a": torch.tensor([True, True, False]), "bias": torch.tensor([True, False])})
    for both in (weights & channels, channels & weights):
        assert both.counts == {"a": 1, "bias": 1}
        assert both["a"].tolist() == [True, False, False]
