"""A checkpoint is believed if its digest is right and torch can read it; else it is set aside."""

from __future__ import annotations

import hashlib
import warnings

import pytest
import torch

from tombola.training.checkpoint import DIGEST, MAGIC, Checkpoint

STATE = {"values": {"weight": torch.arange(3.0)}, "cost": {"seconds": 1.0}}


@pytest.fixture
def path(tmp_path):
    Checkpoint(tmp_path / "one.pt").save(STATE)
    return tmp_path / "one.pt"


def test_what_was_saved_comes_back(path):
    assert torch.equal(Checkpoint(path).load()["values"]["weight"], STATE["values"]["weight"])


@pytest.mark.parametrize("place", [0, 5, len(MAGIC), len(MAGIC) + DIGEST, -1])
def test_a_turned_bit_is_found(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match=r"one\.pt is damaged, or of another version; it stands aside"):
        assert Checkpoint(path).load() is None
    assert path.with_name("one.pt.damaged").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 2000, b"\x80\x05.", b"PK\x03\x04" + bytes(500)], ids=len)
def test_what_torch_cannot_read_is_set_aside_though_its_digest_is_right(path, content):
    path.write_bytes(MAGIC + hashlib.blake2b(content, digest_size=DIGEST).digest() + content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert Checkpoint(path).load() is None
    assert any("stands aside" in str(warning.message) for warning in said)
