"""Your own images: DIR/train/CLASS/*, DIR/test/CLASS/*, and DIR/validation/CLASS/* if you have chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.zoo.normalisation import Data, normalised

KINDS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def image_folder(folder: Path, size: int | None = None) -> Data:
    """Images of shape (3, size, size), a class for each folder of `train`, in alphabetical order; normalised.

    size: each image is scaled and cut at its centre to a square of this side; None takes images as they are, which
    must then be of one size. Raises TombolaError for folders without images, with other classes than `train`,
    for a file that is no image, and without the package Pillow.
    """
    for split in ("train", "test"):
        if not (folder / split).is_dir():
            raise TombolaError(f"{folder} has no folder '{split}'; put images into {folder}/{split}/CLASS/")
    classes = _classes(folder / "train")
    splits = [split for split in ("train", "validation", "test") if (folder / split).is_dir()]
    return normalised({split: _split(folder / split, classes, size) for split in splits})


def _classes(train: Path) -> list[str]:
    names = sorted(child.name for child in train.iterdir() if child.is_dir() and not child.name.startswith("."))
    if len(names) < 2:
        raise TombolaError(f"{train} has {len(names)} folders of images; it needs one for each class, at least two")
    return names


def _split(place: Path, classes: Sequence[str], size: int | None) -> tuple[Tensor, Tensor]:
    extra = sorted(c.name for c in place.iterdir() if c.is_dir() and c.name not in classes and c.name[0] != ".")
    if extra:
        raise TombolaError(f"{place / extra[0]} is a class that the training folder does not have")
    paths = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((place / name).glob("*"))
        if path.suffix.lower() in KINDS
    ]
    if not paths:
        raise TombolaError(f"{place} holds no images ({', '.join(KINDS)}); put them into {place}/{classes[0]}/, …")
    images = [_image(path, size) for path, _ in paths]
    for (path, _), image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            sizes = [f"{shape[2]}×{shape[1]}" for shape in (image.shape, images[0].shape)]
            raise TombolaError(f"{path} is {sizes[0]} and {paths[0][0]} is {sizes[1]}; give --image-size")
    return torch.stack(images), torch.tensor([label for _, label in paths])


def _image(path: Path, size: int | None) -> Tensor:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise TombolaError("reading image folders needs Pillow; install it: pip install 'tombola[images]'") from error
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        raise TombolaError(f"{path} cannot be read as an image ({error}); mend it or take it away") from error
    if size is not None:
        image = ImageOps.fit(image, (size, size))
    return torch.from_numpy(np.asarray(image, np.uint8).copy()).permute(2, 0, 1).float().div_(255)
