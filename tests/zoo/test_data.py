"""Data in files: read as it is, and one clear sentence where it is missing or damaged."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile

import numpy as np
import pytest
import torch

from tombola import TombolaError
from tombola.tickets import digest_of
from tombola.zoo import data, data_files
from tombola.zoo.fashion_mnist import DEBIAN, FILES, fashion_mnist_14

needs_fashion = pytest.mark.skipif(
    not DEBIAN.exists() and not os.environ.get("CI"), reason="needs apt-get install dataset-fashion-mnist"
)


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(
        b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )


@pytest.fixture
def small_fashion(tmp_path):
    """Four files of the true format with few images."""
    rng = np.random.default_rng(0)
    sizes = (30, 30, 20, 20)
    for remote, size in zip(FILES, sizes, strict=True):
        array = rng.integers(0, 256, (size, 28, 28)) if "images" in remote.name else np.arange(size) % 10
        (tmp_path / remote.name).write_bytes(idx(array.astype(np.uint8)))
    return tmp_path


@needs_fashion
def test_fashion_mnist_is_whole_and_normalised():
    (images, labels), (test, test_labels) = data("fashion-mnist").values()
    assert images.shape == (60_000, 1, 28, 28)
    assert test.shape == (10_000, 1, 28, 28)
    assert labels.bincount().tolist() == [6_000] * 10
    assert test_labels.bincount().tolist() == [1_000] * 10
    assert images.mean().abs() < 1e-4
    assert images.std() == pytest.approx(1, abs=1e-4)
    low, high = images.min().item(), images.max().item()  # 0 and 1 before: mean 0.2860, deviation 0.3530
    assert -low / (high - low) == pytest.approx(0.2860, abs=1e-4)
    assert 1 / (high - low) == pytest.approx(0.3530, abs=1e-4)


@needs_fashion
def test_the_standard_bench_is_the_averaged_beginning_of_the_training_file():
    small, large = fashion_mnist_14(), data("fashion-mnist")
    assert {split: tuple(inputs.shape) for split, (inputs, _) in small.items()} == {
        "train": (20_000, 1, 14, 14),
        "validation": (2_000, 1, 14, 14),
        "test": (10_000, 1, 14, 14),
    }
    assert torch.equal(small["train"][1], large["train"][1][:20_000])
    assert torch.equal(small["validation"][1], large["train"][1][20_000:22_000])
    averaged = large["test"][0][:50].reshape(50, 1, 14, 2, 14, 2).mean((3, 5))
    correlation = torch.corrcoef(torch.stack([averaged.flatten(), small["test"][0][:50].flatten()]))[0, 1]
    assert correlation > 0.9999


def test_a_folder_of_ones_own_is_read(small_fashion):
    (images, labels), (test, _) = data("fashion-mnist", small_fashion).values()
    assert images.shape == (30, 1, 28, 28)
    assert test.shape == (20, 1, 28, 28)
    assert labels.tolist() == [i % 10 for i in range(30)]


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.unlink(), "has no t10k-images-idx3-ubyte.gz of fashion-mnist; apt-get install"),
        (lambda path: path.write_bytes(path.read_bytes()[:-400]), "is damaged"),
        (lambda path: path.write_bytes(b"not gzip"), "is damaged"),
        (lambda path: path.write_bytes(gzip.compress(b"\0\0\x08\x03\0\0")), "header is cut short"),
        (lambda path: path.write_bytes(gzip.compress(b"<html>")), "not an IDX file"),
        (lambda path: path.write_bytes(idx(np.zeros((20, 28, 28), np.uint8))[:-1] + b"x"), "is damaged"),
        (lambda path: path.write_bytes(idx(np.zeros((19, 28, 28), np.uint8))), "as many labels as images"),
    ],
)
def test_missing_and_damaged_files_are_named(small_fashion, harm, says):
    harm(small_fashion / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(TombolaError, match=says) as caught:
        data("fashion-mnist", small_fashion)
    assert "t10k-images-idx3-ubyte.gz" in str(caught.value)


def test_what_cannot_be_downloaded_says_how_to_get_it(monkeypatch, tmp_path):
    import pooch
    from requests import ConnectionError as Unreachable

    def unreachable(*_, **__):
        raise Unreachable("no route")

    monkeypatch.setattr(pooch, "retrieve", unreachable)
    with pytest.raises(TombolaError, match=r"cifar10 is not here.*cannot be reached.*--data-dir"):
        data("cifar10")

    def another_file(*_, **__):
        raise ValueError("hash differs")

    monkeypatch.setattr(pooch, "retrieve", another_file)
    with pytest.raises(TombolaError, match="a file with another checksum than"):
        data("cifar100")


def test_a_download_lands_in_the_cache_and_is_held_against_its_checksum(monkeypatch, tmp_path, small_fashion):
    """A server of our own: the first call fetches, the second does not, a wrong checksum is refused."""
    import hashlib
    import http.server
    import threading

    import pooch

    name = FILES[0].name
    handler = lambda *args: http.server.SimpleHTTPRequestHandler(*args, directory=str(small_fashion))  # noqa: E731
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    checksum = hashlib.md5((small_fashion / name).read_bytes()).hexdigest()
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    remote = data_files.Remote(name, url, f"md5:{checksum}")
    (path,) = data_files.locate("fashion-mnist", [remote], None, (), "get it")
    assert path.read_bytes() == (small_fashion / name).read_bytes()
    server.shutdown()
    server.server_close()
    assert data_files.locate("fashion-mnist", [remote], None, (), "get it") == [path]
    with pytest.raises(TombolaError, match="get it"):
        data_files.locate("fashion-mnist", [data_files.Remote(name, url, "md5:" + "0" * 32)], None, (), "get it")


def cifar_records(count: int, labels: int, seed: int) -> bytes:
    rows = np.random.default_rng(seed).integers(0, 256, (count, labels + 3072)).astype(np.uint8)
    rows[:, labels - 1] = np.arange(count) % 10
    return rows.tobytes()


def cifar_files(name: str) -> dict[str, bytes]:
    if name == "cifar10":
        train = {f"data_batch_{i}.bin": cifar_records(4, 1, i) for i in range(1, 6)}
        return train | {"test_batch.bin": cifar_records(6, 1, 9)}
    return {"train.bin": cifar_records(20, 2, 1), "test.bin": cifar_records(6, 2, 2)}


INSIDE = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
ARCHIVE = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("form", ["files", "folder", "archive"])
def test_cifar_is_read_in_every_form_that_it_comes_in(tmp_path, name, form):
    content = cifar_files(name)
    place = tmp_path if form == "files" else tmp_path / INSIDE[name]
    place.mkdir(exist_ok=True)
    if form == "archive":
        with tarfile.open(tmp_path / ARCHIVE[name], "w:gz") as archive:
            for file, own in content.items():
                info = tarfile.TarInfo(f"{INSIDE[name]}/{file}")
                info.size = len(own)
                archive.addfile(info, io.BytesIO(own))
    else:
        for file, own in content.items():
            (place / file).write_bytes(own)
    (images, labels), (test, test_labels) = data(name, tmp_path).values()
    assert images.shape == (20, 3, 32, 32)
    assert test.shape == (6, 3, 32, 32)
    assert test_labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert labels.tolist() == ([0, 1, 2, 3] * 5 if name == "cifar10" else [i % 10 for i in range(20)])
    skip = 1 if name == "cifar10" else 2
    first = np.frombuffer(content[next(iter(content))], np.uint8)[skip : skip + 3072].reshape(3, 32, 32)
    for channel in range(3):
        assert np.corrcoef(first[channel].ravel(), images[0, channel].numpy().ravel())[0, 1] == pytest.approx(1)
    assert images.mean((0, 2, 3)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("test_batch.bin", b"", "not a whole number of images"),
        ("data_batch_3.bin", b"\0" * 3074, "not a whole number of images"),
        ("data_batch_3.bin", None, "has no data_batch_3.bin of cifar10"),
    ],
)
def test_damaged_cifar_is_refused(tmp_path, file, content, says):
    for name, own in cifar_files("cifar10").items():
        (tmp_path / name).write_bytes(own)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(TombolaError, match=says):
        data("cifar10", tmp_path)


def test_a_damaged_archive_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(TombolaError, match=r"has no cifar-10-binary.tar.gz of cifar10; give the folder"):
        data("cifar10", tmp_path)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"no archive")
    with pytest.raises(TombolaError, match="is damaged"):
        data("cifar10", tmp_path)


@pytest.fixture
def image_folder(tmp_path):
    from PIL import Image

    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("ants", "bees")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (12, 9), (100 * label, 20 * i, 50)).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_images_in_folders_are_classes(image_folder):
    splits = data("images", image_folder)
    assert splits["train"][0].shape == (6, 3, 9, 12)
    assert splits["train"][1].tolist() == [0, 0, 0, 1, 1, 1]
    assert splits["test"][1].tolist() == [0, 0, 1, 1]
    assert data("images", image_folder, 8)["test"][0].shape == (4, 3, 8, 8)


def test_images_that_cannot_be_used_are_named(image_folder):
    from PIL import Image

    odd = image_folder / "test" / "bees" / "0.png"
    Image.new("RGB", (5, 5)).save(odd)
    with pytest.raises(TombolaError, match=r"0.png is 5×5 and .* is 12×9; give --image-size"):
        data("images", image_folder)
    odd.write_bytes(b"nothing")
    with pytest.raises(TombolaError, match=r"0\.png is no image that Pillow reads"):
        data("images", image_folder, 8)
    (image_folder / "test" / "wasps").mkdir()
    with pytest.raises(TombolaError, match="wasps is a class that the training folder lacks"):
        data("images", image_folder, 8)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda place: data("images"), "say where your images are: --data-dir"),
        (lambda place: data("images", place), "has no folder 'train'"),
        (lambda place: data("digits", place), "leave --data-dir out"),
        (lambda place: data("cifar10", place, 32), "leave --image-size out"),
        (lambda place: data("cifar10", place / "nowhere"), "there is no folder"),
    ],
)
def test_options_that_do_not_fit_the_data_are_refused(tmp_path, call, says):
    with pytest.raises(TombolaError, match=says):
        call(tmp_path)


def test_the_cubist_spiral_has_the_papers_points():
    splits = data("cubist-spiral")
    inputs, targets = splits["train"]
    assert inputs.shape == (49_982, 2)
    assert targets.bincount().tolist() == [24_991, 24_991]
    assert torch.equal(inputs, splits["test"][0])
    assert inputs.mean(0).abs().max() < 1e-4
    assert torch.allclose(inputs.std(0), torch.ones(2), atol=1e-4)
    assert inputs.min(0).values.tolist() == pytest.approx([-1.6872, -2.2016], abs=1e-4)
    assert inputs.max(0).values.tolist() == pytest.approx([1.7704, 1.7419], abs=4e-4)
    counts = [831, 928, 1025, 1123, 1220, 1318, 1415, 1513, 1610, 1708, 1806, 1903, 2001, 2099, 2197, 2294]
    counts_one = [609, 734, 860, 987, 1114, 1241, 1369, 1497, 1624, 1752, 1880, 2008, 2137, 2265, 2393, 2521]
    vertices = {
        0: [(-0.0079, -0.7616), (0.5846, -0.8010), (1.0757, -0.3395)],
        1: [(0.0999, -0.4178), (0.4262, -0.4789)],
    }
    for label, sizes in ((0, counts), (1, counts_one)):
        own = inputs[targets == label]
        ends = np.cumsum(sizes) - 1  # a segment's last point is its beginning
        begins = np.concatenate([[0], ends[:-1] + 1])
        assert torch.allclose(own[begins[:-1]], own[ends[1:]], atol=1e-6)
        for vertex, point in enumerate(vertices[label]):
            assert own[ends[vertex]].tolist() == pytest.approx(point, abs=1e-4)


@pytest.mark.parametrize(
    "name", ["digits", "mnist1d", "cubist-spiral", pytest.param("fashion-mnist", marks=needs_fashion)]
)
def test_data_are_the_same_however_many_threads_there_are(name):
    before = torch.get_num_threads()
    try:
        digests = set()
        for threads in (1, 3):
            torch.set_num_threads(threads)
            digests.add(digest_of({split: own[0] for split, own in data(name).items()}))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1
