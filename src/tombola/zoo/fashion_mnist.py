"""Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017): 28×28 grey images of ten kinds of clothes."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tombola.errors import TombolaError
from tombola.zoo.data_files import Remote, damaged, locate, unzipped
from tombola.zoo.normalisation import Data, normalised

ROOT = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
FILES = [
    Remote(name, ROOT + name, f"md5:{checksum}")
    for name, checksum in (
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    )
]
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
HINT = "apt-get install dataset-fashion-mnist, or give the folder of its four .gz files as --data-dir"
BENCH_TRAINING, BENCH_VALIDATION = 20_000, 2_000


def fashion_mnist(folder: Path | None = None) -> Data:
    """60,000 training and 10,000 test images of shape (1, 28, 28), normalised by the training images.

    Args:
        folder: of the four .gz files; if None, Debian's folder, or else a download.

    Raises:
        TombolaError: if the files are missing or damaged, or cannot be downloaded.
    """
    (images, labels), (test, test_labels) = _raw(folder)
    return normalised({"train": (images, labels), "test": (test, test_labels)})


def fashion_mnist_14(folder: Path | None = None) -> Data:
    """Fashion-MNIST averaged over 2×2 pixels to shape (1, 14, 14): the standard bench of this project.

    The first 20,000 images of the training file train, the next 2,000 validate, and all 10,000 of the test file test.
    `folder` and errors are as in `fashion_mnist`.
    """
    return _bench(folder, lambda images: F.avg_pool2d(images, 2))


def fashion_mnist_32(folder: Path | None = None) -> Data:
    """The bench's 20,000, 2,000 and 10,000 images of `fashion_mnist_14`, enlarged to shape (1, 32, 32), CIFAR's size.

    On smaller images the deep layers of VGG see little but padding, so that most of their weights meet zeros alone.
    `folder` and errors are as in `fashion_mnist`.
    """
    return _bench(folder, lambda images: F.interpolate(images, (32, 32), mode="bilinear", align_corners=False))


def _bench(folder: Path | None, resized: Callable[[Tensor], Tensor]) -> Data:
    (images, labels), (test, test_labels) = _raw(folder)
    end = BENCH_TRAINING + BENCH_VALIDATION
    chosen = resized(images[:end])
    return normalised(
        {
            "train": (chosen[:BENCH_TRAINING], labels[:BENCH_TRAINING]),
            "validation": (chosen[BENCH_TRAINING:], labels[BENCH_TRAINING:end]),
            "test": (resized(test), test_labels),
        }
    )


def _raw(folder: Path | None) -> list[tuple[Tensor, Tensor]]:
    images, labels, test, test_labels = locate("fashion-mnist", FILES, folder, (DEBIAN,), HINT)
    return [_pair(images, labels), _pair(test, test_labels)]


def _pair(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    pixels, classes = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or classes.ndim != 1 or len(pixels) != len(classes):
        raise TombolaError(
            f"{images.name} holds an array of shape {pixels.shape} and {labels.name} one of {classes.shape}; "
            "give files with as many labels as images"
        )
    return torch.from_numpy(pixels).float().div_(255).unsqueeze(1), torch.from_numpy(classes).long()


def read_idx(path: Path) -> np.ndarray:
    """The bytes of a gzipped IDX file (LeCun's format) as an array of its shape.

    Raises:
        TombolaError: if the file is damaged, or holds other numbers than bytes.
    """
    content = unzipped(path)
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise damaged(path, "it is not an IDX file of bytes")
    dimensions = content[3]
    if not 1 <= dimensions <= 4:
        raise damaged(path, f"it says that it has {dimensions} dimensions")
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise damaged(path, "its header is cut short")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise damaged(path, f"it should hold {' × '.join(map(str, shape))} bytes and holds {len(content) - header:,}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
