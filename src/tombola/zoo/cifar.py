"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 32×32 colour images, from the binary version of the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.files import content_of
from tombola.zoo.data_files import Remote, damaged, locate, unpacked
from tombola.zoo.normalisation import Data, normalised

ROOT = "https://www.cs.toronto.edu/~kriz/"
TEN = Remote("cifar-10-binary.tar.gz", ROOT + "cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530")
HUNDRED = Remote("cifar-100-binary.tar.gz", ROOT + "cifar-100-binary.tar.gz", "md5:03b5dce01913d631647c71ecec9e9cb8")
PIXELS = 3 * 32 * 32


def cifar10(folder: Path | None = None) -> Data:
    """CIFAR-10: 50,000 training and 10,000 test images of shape (3, 32, 32), normalised channel by channel.

    Args:
        folder: of the archive or of its .bin files; if None, the archive is downloaded.

    Raises:
        TombolaError: if the files are missing or damaged, or cannot be downloaded.
    """
    batches = [f"data_batch_{number}.bin" for number in range(1, 6)]
    return _cifar("cifar10", TEN, "cifar-10-batches-bin", batches, ["test_batch.bin"], 1, folder)


def cifar100(folder: Path | None = None) -> Data:
    """CIFAR-100 with its hundred fine classes; otherwise as `cifar10`."""
    return _cifar("cifar100", HUNDRED, "cifar-100-binary", ["train.bin"], ["test.bin"], 2, folder)


def _cifar(
    name: str,
    archive: Remote,
    directory: str,
    train: Sequence[str],
    test: Sequence[str],
    labels: int,
    given: Path | None,
) -> Data:
    files = [*train, *test]
    hint = f"give the folder of {archive.name}, or of the .bin files in it, as --data-dir"
    folders = [given, given / directory] if given else []
    folder = next((path for path in folders if (path / files[0]).exists()), None)
    if folder is not None:
        missing = [file for file in files if not (folder / file).exists()]
        if missing:
            raise TombolaError(f"{folder} has no {', '.join(missing)} of {name}; {hint}")
        records = {file: _records(folder / file, content_of(folder / file), labels) for file in files}
    else:
        (packed,) = locate(name, [archive], given, (), hint)
        records = _unpacked(packed, directory, files, labels)
    return normalised(
        {"train": _images([records[f] for f in train], labels), "test": _images([records[f] for f in test], labels)}
    )


def _unpacked(packed: Path, directory: str, files: Sequence[str], labels: int) -> dict[str, np.ndarray]:
    archive = content_of(packed)
    try:
        contents = unpacked(archive, [f"{directory}/{file}" for file in files])
    except ValueError as error:
        raise damaged(packed, str(error)) from error
    return {file: _records(packed, content, labels) for file, content in zip(files, contents, strict=True)}


def _records(path: Path, content: bytes, labels: int) -> np.ndarray:
    """The content of a file with a row for each image: its `labels` label bytes, then 3,072 pixels by channel."""
    size = labels + PIXELS
    if not content or len(content) % size:
        raise damaged(path, f"{len(content):,} bytes are not a whole number of images of {size:,} bytes")
    return np.frombuffer(content, np.uint8).reshape(-1, size)


def _images(records: Sequence[np.ndarray], labels: int) -> tuple[Tensor, Tensor]:
    rows = np.concatenate(records)
    pixels = torch.from_numpy(rows[:, labels:].reshape(-1, 3, 32, 32)).float().div_(255)
    # CIFAR-100 puts a coarse label before the fine one; the last label byte is the class in both.
    return pixels, torch.from_numpy(rows[:, labels - 1].astype(np.int64))
