"""A ticket's file: equal after a round trip, small, and never half read."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from torch import nn

from tombola import Mask, Ticket, TombolaError, attach
from tombola.files import printable_text
from tombola.tickets import Provenance, Seed, Values, digest_of, tensors_of
from tombola.tickets.ticket_file import write_file

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]

shown = st.text(min_size=1, max_size=8).filter(lambda name: name == printable_text(name))
names = shown | st.sampled_from(["a.weight", "b/c", 'quo"te', "ü", "mask/x", "values/x"])
shapes = st.lists(st.integers(1, 9), max_size=3).map(tuple)
scalars = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.booleans()
recipes = st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=3).map(tuple), max_size=3)


@st.composite
def masks(draw) -> Mask:
    sized = draw(st.dictionaries(names, shapes, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    ties = draw(st.integers(0, 9))
    return Mask.of({name: torch.rand(shape, generator=generator) < 0.5 for name, shape in sized.items()}, ties)


@st.composite
def values(draw) -> Values:
    def tensor(shape, dtype):
        made = torch.randn(shape, generator=generator)
        return (made > 0) if dtype == torch.bool else (100 * made).to(dtype)

    sized = draw(st.dictionaries(names, st.tuples(shapes, st.sampled_from(DTYPES)), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    spent = draw(st.floats(0, 1e6))
    return Values({n: tensor(*own) for n, own in sized.items()}, draw(st.sampled_from(["500it", "end"])), spent)


@st.composite
def tickets(draw) -> Ticket:
    provenance = Provenance(
        method=draw(st.text()),
        settings=draw(st.dictionaries(st.text(), st.recursive(scalars, lambda x: st.lists(x, max_size=2)), max_size=3)),
        task={"data": "digits"},
        cost={"seconds": draw(st.floats(0, 1e9))},
        seed=draw(st.none() | st.integers(0, 2**40)),
        ties=3,
        version="0.1",
    )
    return Ticket(
        mask=draw(masks()),
        start=draw(values() | st.builds(Seed, st.integers(0, 2**63), st.text())),
        held=tuple(draw(st.lists(names, max_size=3))),
        recipe=draw(recipes),
        removed=draw(st.dictionaries(names, st.lists(st.integers(0, 99), max_size=3).map(tuple), max_size=2)),
        provenance=provenance,
    )


def small_ticket() -> Ticket:
    mask = Mask.of({"a.weight": torch.arange(30).reshape(5, 6) % 3 == 0, "b": torch.tensor([True])})
    return Ticket(
        mask,
        Values({"a.weight": torch.arange(6.0), "n": torch.tensor(3)}, "10it", 0.5),
        held=("n",),
        recipe={"start": "10it", "lr": 0.1},
        removed={"g": (1, 2)},
        provenance=Provenance("imp", {"density": 0.3}, seed=0),
    )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tickets())
def test_a_ticket_is_equal_after_a_round_trip(tmp_path, ticket):
    ticket.save(tmp_path / "t.safetensors")
    loaded = Ticket.load(tmp_path / "t.safetensors")
    assert loaded == ticket
    assert loaded.digest == ticket.digest
    assert dict(loaded.mask) == {} or all(torch.equal(loaded.mask[n], ticket.mask[n]) for n in ticket.mask)
    if isinstance(ticket.start, Values):
        for name, tensor in ticket.start.tensors.items():
            assert loaded.start.tensors[name].dtype == tensor.dtype
            assert torch.equal(loaded.start.tensors[name], tensor)
    assert os.listdir(tmp_path) == ["t.safetensors"]


@settings(max_examples=20, deadline=None)
@given(tickets())
def test_copies_are_equal(ticket):
    assert copy.deepcopy(ticket) == ticket
    assert pickle.loads(pickle.dumps(ticket)) == ticket


def test_saving_twice_gives_the_same_bytes(tmp_path):
    small_ticket().save(tmp_path / "one")
    small_ticket().save(str(tmp_path / "two"))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    "sizes",
    [
        {"fc.weight": (1000, 1000)},
        {f"encoder.layers.{i}.attention.self.query.weight": (3,) for i in range(200)},
        {f"layer{i}.0.conv1.weight": (64, 64, 3, 3) for i in range(20)},
        {"w": (1,)},
    ],
)
def test_a_mask_only_file_takes_a_bit_a_weight(tmp_path, sizes):
    mask = Mask.of({name: torch.rand(shape) < 0.3 for name, shape in sizes.items()})
    ticket = Ticket(mask, Seed(3, "0" * 32), provenance=Provenance("imp", {"density": 0.3}, {"data": "digits"}))
    ticket.save(tmp_path / "t")
    assert (tmp_path / "t").stat().st_size <= mask.size / 8 + 4096 + 256 * len(sizes)


def test_stored_values_share_no_memory_with_any_model(small_net):
    """Defect F1: saved initial weights that alias the model's drift with it."""
    before = {name: tensor.clone() for name, tensor in tensors_of(small_net).items()}
    start = Values(tensors_of(small_net), "init")
    ticket = Ticket(Mask.full({"0.weight": small_net[0].weight}), start)
    for _ in range(2):  # twice: the alias may be made by the first restoring
        for tensor in tensors_of(small_net).values():
            tensor.add_(1)
        assert all(torch.equal(start.tensors[name], value) for name, value in before.items())
        ticket.put_into(small_net)
        assert all(torch.equal(tensor, before[name]) for name, tensor in tensors_of(small_net).items())
    for tensor in start.tensors.values():
        tensor.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors_of(small_net).items())


def test_put_into_keeps_the_models_own_tensors(small_net):
    parameters = list(small_net.parameters())
    optimizer = torch.optim.SGD(parameters, 0.1)
    Ticket(Mask.full({}), Values(tensors_of(small_net), "init")).put_into(small_net)
    assert all(a is b for a, b in zip(parameters, small_net.parameters(), strict=True))
    assert optimizer.param_groups[0]["params"][0] is small_net[0].weight
    assert all(parameter.requires_grad for parameter in small_net.parameters())


def test_the_digest_is_of_what_trains():
    ticket = small_ticket()
    assert replace(ticket, provenance=Provenance("other")).digest == ticket.digest
    assert replace(ticket, recipe={"lr": 0.2}).digest != ticket.digest
    assert replace(ticket, held=()).digest != ticket.digest
    assert replace(ticket, mask=ticket.mask.shuffled(1)).digest != ticket.digest
    assert replace(ticket, start=Values({"a.weight": torch.zeros(6)}, "10it")).digest != ticket.digest


def test_tickets_share_no_mutable_settings():
    """Defect F15: a mutable default leaks from one object to the next."""
    recipe = {"lr": 0.1}
    ticket, other = Ticket(Mask.full({}), Seed(0, ""), recipe=recipe), Ticket(Mask.full({}), Seed(0, ""))
    recipe["lr"] = 9.0
    assert ticket.recipe == {"lr": 0.1}
    try:
        ticket.provenance.settings["leak"] = 1
    except TypeError:
        return
    assert "leak" not in other.provenance.settings
    assert "leak" not in Ticket(Mask.full({}), Seed(0, "")).provenance.settings


# The start in a model


def test_a_seed_start_accepts_only_the_weights_it_was_found_on(small_net):
    start = Seed(7, digest_of(tensors_of(small_net)))
    ticket = Ticket(Mask.full({"0.weight": small_net[0].weight}), start)
    ticket.put_into(small_net)
    small_net[1].running_mean[0] += 1e-3
    with pytest.raises(TombolaError, match="seed 7"):
        ticket.put_into(small_net)


@pytest.mark.parametrize("start", ["seed", "values"])
def test_another_architecture_is_refused_by_the_tensors_name(small_net, start):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 6))
    own = tensors_of(small_net)
    ticket = Ticket(
        Mask.full({"5.weight": small_net[5].weight}), Seed(0, digest_of(own)) if start == "seed" else Values(own, "end")
    )
    with pytest.raises(TombolaError, match=r"another architecture.*'5.weight' is missing"):
        ticket.put_into(model)


@pytest.mark.parametrize("change", ["drop", "add", "reshape"])
def test_values_of_another_architecture_leave_the_model_alone(small_net, change):
    stored = {name: tensor + 1 for name, tensor in tensors_of(small_net).items()}
    if change == "drop":
        del stored["1.running_mean"]
    elif change == "add":
        stored["1.running_mean.more"] = torch.zeros(1)
    else:
        stored["1.running_mean"] = torch.zeros(1)
    before = digest_of(tensors_of(small_net))
    with pytest.raises(TombolaError, match=r"1\.running_mean"):
        Ticket(Mask.full({}), Values(stored, "end")).put_into(small_net)
    assert digest_of(tensors_of(small_net)) == before


def test_held_parameters_that_a_model_does_not_have_are_refused(small_net):
    ticket = Ticket(Mask.full({"0.weight": small_net[0].weight}), Seed(0, ""), held=("1.gamma",))
    with pytest.raises(TombolaError, match=r"1\.gamma"):
        attach(ticket, small_net)


# Damaged files


def refused_or_equal(path: Path, data: bytes, ticket: Ticket) -> bool:
    path.write_bytes(data)
    try:
        loaded = Ticket.load(path)
    except TombolaError:
        return True
    assert loaded == ticket
    assert loaded.provenance == ticket.provenance
    return False


def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path):
    ticket = small_ticket()
    ticket.save(tmp_path / "t")
    data = (tmp_path / "t").read_bytes()
    for length in range(len(data)):
        assert refused_or_equal(tmp_path / "cut", data[:length], ticket), length
    assert refused_or_equal(tmp_path / "long", data + b"\0", ticket)
    assert refused_or_equal(tmp_path / "twice", data + data, ticket)


@pytest.mark.parametrize("flip", [0x01, 0x02, 0x04, 0x20, 0x80, 0xFF])
def test_a_flipped_byte_is_refused_or_does_not_matter(tmp_path, flip):
    ticket = small_ticket()
    ticket.save(tmp_path / "t")
    data = (tmp_path / "t").read_bytes()
    assert not refused_or_equal(tmp_path / "whole", data, ticket)
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= flip
        refused_or_equal(tmp_path / "flipped", bytes(altered), ticket)


BITS = torch.tensor([0b10100000], dtype=torch.uint8)
DEEP = "[" * 100_000 + "]" * 100_000


def header(metadata: dict, **entries) -> bytes:
    text = json.dumps({"__metadata__": metadata, **entries}).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 8,
        b"not a ticket at all",
        pickle.dumps({"mask": [1, 2, 3]}),
        b"PK\x03\x04" + b"\0" * 100,
        (2**63).to_bytes(8, "little") + b"{}",
        (2**64 - 1).to_bytes(8, "little") + b"{}" * 50,
        (100).to_bytes(8, "little") + b"{}",
        header({}),
        header({"tombola": ""}),
        header({"tombola": "{"}),
        header({"tombola": "null"}),
        header({"tombola": "[1]"}),
        header({"tombola": "1e999"}),
        header({"tombola": DEEP}),
        header({"tombola": '{"format": 1, "shapes": ' + DEEP + "}"}),
        header({"tombola": '{"format": ' + "9" * 10_000 + "}"}),
        header({"tombola": 5}),
        header({}, w={"dtype": "U8", "shape": [2**62, 2**62], "data_offsets": [0, 1]}),
        header({}, w={"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}) + b"\0",
        header({}, w={"dtype": "X9", "shape": [1], "data_offsets": [0, 1]}) + b"\0",
        header({}, w={"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}) + b"\0",
        header({}, w={"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}) + b"\0",
        (200_000).to_bytes(8, "little") + DEEP.encode(),
        save_safetensors({"w": BITS}),
        save_safetensors({"w": BITS}, {"tombola": "{}"}),
        save_safetensors({"w": BITS}, {"tombola": '{"format": 1}'}),
    ],
    ids=range(27),
)
def test_a_foreign_file_is_refused(tmp_path, data):
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(TombolaError, match="not a whole, unaltered ticket"):
        Ticket.load(tmp_path / "t")


GOOD = {
    "shapes": {"w": [3]},
    "start": {"seed": 1, "digest": "ab", "weights": "own"},
    "held": [],
    "recipe": {},
    "removed": {},
    "provenance": {
        "method": "",
        "settings": {},
        "task": {},
        "cost": {},
        "seed": None,
        "ties": 0,
        "before": None,
        "version": "",
    },
}


def changed(**changes) -> dict:
    return {key: value for key, value in (GOOD | changes).items() if value is not ...}


def provenance(**changes) -> dict:
    return changed(provenance={k: v for k, v in (GOOD["provenance"] | changes).items() if v is not ...})


def test_the_hostile_files_below_differ_from_a_good_one_only_where_they_say(tmp_path):
    write_file(tmp_path / "t", GOOD, {"mask/w": BITS})
    assert Ticket.load(tmp_path / "t").mask["w"].tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("description", "tensors"),
    [
        (changed(format="1"), {"mask/w": BITS}),
        (changed(format=None), {"mask/w": BITS}),
        *[(changed(**{field: ...}), {"mask/w": BITS}) for field in GOOD],
        *[(changed(**{field: 5}), {"mask/w": BITS}) for field in GOOD],
        *[(changed(**{field: None}), {"mask/w": BITS}) for field in GOOD],
        *[(provenance(**{field: ...}), {"mask/w": BITS}) for field in GOOD["provenance"]],
        *[(provenance(**{field: [1]}), {"mask/w": BITS}) for field in GOOD["provenance"]],
        (provenance(ties=True), {"mask/w": BITS}),
        (provenance(method=3), {"mask/w": BITS}),
        (provenance(seed="x"), {"mask/w": BITS}),
        (changed(shapes={"w": [-3]}), {"mask/w": BITS}),
        (changed(shapes={"w": [3.0]}), {"mask/w": BITS}),
        (changed(shapes={"w": [True, 3]}), {"mask/w": BITS}),
        (changed(shapes={"w": "3"}), {"mask/w": BITS}),
        (changed(shapes={"w": 3}), {"mask/w": BITS}),
        (changed(shapes={"w": [9]}), {"mask/w": BITS}),
        (changed(shapes={"w": [2]}), {"mask/w": BITS}),  # bits set beyond the end
        (changed(shapes={"w": [2**40, 2**40]}), {"mask/w": BITS}),
        (changed(shapes={"v": [3]}), {"mask/w": BITS}),
        (changed(shapes={}), {"mask/w": BITS}),
        (changed(shapes={"w": [3], "v": [3]}), {"mask/w": BITS}),
        (changed(), {"mask/w": torch.tensor([0b10110000], dtype=torch.uint8)}),  # padding bits
        (changed(), {"mask/w": BITS.to(torch.int8)}),
        (changed(), {"mask/w": BITS.float()}),
        (changed(), {"mask/w": BITS.reshape(1, 1)}),
        (changed(), {"mask/w": torch.cat([BITS, BITS])}),
        (changed(), {"mask/w": BITS[:0]}),
        (changed(), {"mask/w": BITS, "mask/v": BITS.clone()}),
        (changed(), {"mask/w": BITS, "w": BITS.clone()}),
        (changed(), {"mask/w": BITS, "values/w": torch.zeros(3)}),  # a seed and values
        (changed(start={"what": "end", "epochs_spent": 1.0}), {"mask/w": BITS}),
        (changed(start={"what": 1, "epochs_spent": 1.0}), {"mask/w": BITS, "values/w": torch.zeros(3)}),
        (changed(start={"what": "end", "epochs_spent": "1"}), {"mask/w": BITS, "values/w": torch.zeros(3)}),
        (changed(start={"seed": "1", "digest": "ab", "weights": "own"}), {"mask/w": BITS}),
        (changed(start={"seed": 1, "weights": "own"}), {"mask/w": BITS}),
        (changed(start={"seed": True, "digest": "ab", "weights": "own"}), {"mask/w": BITS}),
        (changed(start={"seed": 1, "digest": "ab"}), {"mask/w": BITS}),
        (changed(start={"seed": 1, "digest": "ab", "weights": "xavier"}), {"mask/w": BITS}),
        (changed(held=["a", 1]), {"mask/w": BITS}),
        (changed(held="abc"), {"mask/w": BITS}),
        (changed(recipe=["lr"]), {"mask/w": BITS}),
        (changed(removed={"g": [-1]}), {"mask/w": BITS}),
        (changed(removed={"g": 1}), {"mask/w": BITS}),
        (changed(removed={"g": ["1"]}), {"mask/w": BITS}),
    ],
    ids=str,
)
def test_a_hostile_file_with_a_matching_digest_is_refused(tmp_path, description, tensors):
    write_file(tmp_path / "t", description, tensors)
    with pytest.raises(TombolaError, match="not a whole, unaltered ticket"):
        Ticket.load(tmp_path / "t")


# Paths and disks


def test_a_missing_file_and_a_folder_are_refused_by_path(tmp_path):
    for path in (tmp_path / "nothing.safetensors", tmp_path):
        with pytest.raises(TombolaError, match="cannot read the ticket") as caught:
            Ticket.load(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("place", ["file/t.safetensors", "folder"])
def test_an_unwritable_path_is_refused_and_nothing_is_left(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TombolaError, match="could not write") as caught:
        small_ticket().save(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_folders_are_made_on_the_way(tmp_path):
    small_ticket().save(tmp_path / "a" / "b" / "t")
    assert Ticket.load(tmp_path / "a" / "b" / "t") == small_ticket()


FULL_DISK = """
import resource, signal, sys, torch
from tombola import Mask, Ticket, TombolaError
from tombola.tickets import Seed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    Ticket(Mask.full({"w": (1000, 1000)}), Seed(0, "")).save(sys.argv[1])
except TombolaError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    small_ticket().save(tmp_path / "t")
    before = (tmp_path / "t").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "t")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 7, done.stderr
    assert "could not write" in done.stdout
    assert (tmp_path / "t").read_bytes() == before
    assert os.listdir(tmp_path) == ["t"]
    assert math.isclose(Ticket.load(tmp_path / "t").density, 11 / 31)
