"""A checkpoint is believed if its digest is right and torch can read it; else it is set aside."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
import zipfile

import pytest
import torch

from tombola.errors import TombolaError
from tombola.testing import toy_task
from tombola.training import Run
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


def sealed(path, content):
    path.write_bytes(MAGIC + hashlib.blake2b(content, digest_size=DIGEST).digest() + content)


def test_what_grows_when_it_is_read_is_not_read(path):
    stored, packed = io.BytesIO(), io.BytesIO()
    torch.save({"values": torch.zeros(2**20)}, stored)
    with zipfile.ZipFile(stored) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as smaller:
        for name in archive.namelist():
            smaller.writestr(name, archive.read(name))
    sealed(path, packed.getvalue())
    with pytest.warns(UserWarning, match="stands aside"):
        assert Checkpoint(path).load() is None


@pytest.mark.parametrize("state", [{}, [1], 3, {"values": None}], ids=str)
def test_a_whole_checkpoint_of_something_else_is_set_aside_and_the_stage_done_again(tmp_path, state):
    task = toy_task(epochs=1)
    for kind in ("end", "going"):
        content = io.BytesIO()
        torch.save(state, content)
        path = tmp_path / "stages" / f"train.{kind}.pt"
        path.parent.mkdir(exist_ok=True)
        sealed(path, content.getvalue())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(2):  # refused in a sentence, or done again at once
                with contextlib.suppress(TombolaError):
                    Run(folder=tmp_path).stage("train", task, task.build(0))
        assert path.with_name(f"{path.name}.damaged").exists()
        path.unlink(missing_ok=True)
