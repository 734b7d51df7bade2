"""Files of data that are damaged, endless or bombs are refused in a sentence; so are adapters and smaller networks."""

from __future__ import annotations

import gzip
import json
import os
import tarfile

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.integrations.peft import mask_of_adapter
from tombola.shrinking import preview, save_small, shrink
from tombola.zoo import data_files
from tombola.zoo.fashion_mnist import FILES

IDX = {
    "255 dimensions": b"\0\0\x08\xff" + bytes(4 * 255),
    "sides whose product is 0 in 64 bits": b"\0\0\x08\x04" + b"\x80\0\0\0" * 4,
    "no dimension": b"\0\0\x08\0x",
    "a bomb": bytes(2**21),
}


@pytest.mark.parametrize("content", IDX.values(), ids=IDX)
def test_arrays_that_cannot_be_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(data_files, "LARGEST", 2**20)
    for file in FILES:
        (tmp_path / file.name).write_bytes(gzip.compress(content))
    with pytest.raises(tb.TombolaError, match="is damaged"):
        tb.zoo.data("fashion-mnist", tmp_path)


def test_a_pipe_of_data_keeps_nobody_waiting(tmp_path):
    for file in FILES:
        os.mkfifo(tmp_path / file.name)
    with pytest.raises(tb.TombolaError, match="no file of data"):
        tb.zoo.data("fashion-mnist", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE])
def test_archives_of_folders_and_of_links_to_themselves_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.type, member.linkname = kind, f"{name}.bin"
            archive.addfile(member)
    with pytest.raises(tb.TombolaError, match="is damaged"):
        tb.zoo.data("cifar10", tmp_path)


def test_images_that_pillow_cannot_read_are_named(tmp_path):
    pytest.importorskip("PIL.Image")
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "one.ppm").write_bytes(b"P6 1000000000 1000000000 255\n")
    with pytest.raises(tb.TombolaError, match=r"one\.ppm cannot be read as an image"):
        tb.zoo.data("images", tmp_path, 8)
    (tmp_path / "train" / "a" / "one.ppm").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(tb.TombolaError, match=r"one\.ppm"):
        tb.zoo.data("images", tmp_path, 8)


@pytest.mark.parametrize("indices", [[[9], [0]], [[-1], [0]], [[2**62], [0]], [1, 2], [[0], [0], [0]]], ids=str)
def test_an_adapter_that_trains_places_outside_is_refused(indices):
    layer = nn.Linear(4, 3)
    layer.shira_indices = {"default": torch.tensor(indices)}
    with pytest.raises(tb.TombolaError, match=r"the adapter of '0\.weight'"):
        mask_of_adapter(nn.Sequential(layer))


@pytest.mark.parametrize(
    ("kept", "places"), [({"0": {"inputs": None, "outputs": [2**70]}}, None), ({}, {"inner": 10**12}), ({}, {"dim": 9})]
)
def test_a_smaller_network_of_other_sizes_is_refused_at_once(tmp_path, kept, places):
    model, example = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(1, 4)
    rows = torch.tensor([True, False, True])
    mask = tb.Mask.of({"0.weight": rows[:, None].expand(3, 4), "0.bias": rows})
    save_small(tmp_path, shrink(model, mask, example=example), preview(model, mask, example))
    said = json.loads((tmp_path / "network.json").read_text())
    said["kept"] |= kept
    if places:
        place = {"tensor": "0.weight", "dim": 0, "role": "makes", "inner": 1, "outer": 1, "start": 0} | places
        part = {"kind": "neuron", "name": "0", "size": 3, "owner": "", "freed": [], "layers": [], "counts": []}
        said["parts"] = [{"part": part | {"places": [place]}, "removed": [0]}]
    (tmp_path / "network.json").write_text(json.dumps(said))
    with pytest.raises(tb.TombolaError, match="was cut out of another network"):
        tb.load_small(tmp_path, model)


@pytest.mark.parametrize(
    "tensors",
    [
        {0: torch.ones(3, 4)},
        {"0.weight": torch.ones(1).expand(10**6, 10**6)},
        {"0.weight": torch.ones(3, 4, device="meta")},
    ],
    ids=["number", "giant", "meta"],
)
def test_masks_without_names_or_values_are_refused(tensors):
    with pytest.raises(tb.TombolaError):
        tb.tickets.mask_of_tensors(tensors, nn.Sequential(nn.Linear(4, 3)))
